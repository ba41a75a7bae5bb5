"""Registries: names that are imported when they are asked for, and fields of configs that they decide."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml

from vlm import modules
from vlm.assets import cards
from vlm.config import Config, parse
from vlm.errors import BadInput
from vlm.registry import Chosen, Named, Registry


class Shape(Config):
    pass


class Square(Shape):
    kind: Literal["square"] = "square"
    side: int


class Dot(Shape):
    kind: Literal["dot"] = "dot"


@pytest.fixture
def shapes() -> Registry[type[Shape]]:
    return Registry("shape", {"square": f"{__name__}:Square", "dot": f"{__name__}:Dot"})


@pytest.fixture
def drawing(shapes: Registry[type[Shape]]) -> type[Config]:
    class Drawing(Config):
        shape: Annotated[Shape, Chosen(shapes, default="square")]
        others: tuple[Annotated[Shape, Chosen(shapes)], ...] = ()
        favourite: Annotated[str, Named(shapes)] = "dot"

    return Drawing


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module into the working folder; it is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(modules.VARIABLE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return lambda name, code: (tmp_path / f"{name}.py").write_text(code) and None


def test_a_value_is_imported_when_it_is_asked_for() -> None:
    late: Registry[Any] = Registry("late", {"absent": "no_such_package:thing", "wave": "wave:Wave_read"})
    assert list(late) == ["absent", "wave"]
    assert "absent" in late
    assert "wave" not in sys.modules or late["wave"] is sys.modules["wave"].Wave_read
    assert late["wave"] is sys.modules["wave"].Wave_read
    with pytest.raises(ModuleNotFoundError):
        late["absent"]


def test_names_are_added_by_a_decorator_or_a_call(shapes: Registry[type[Shape]]) -> None:
    @shapes.register("line")
    class Line(Shape):
        pass

    assert shapes.register("other", Dot) is Dot
    assert shapes["line"] is Line
    assert shapes.names() == ("square", "dot", "line", "other")
    assert shapes.get("circle") is None


def test_a_name_that_is_taken(shapes: Registry[type[Shape]]) -> None:
    with pytest.raises(BadInput, match="shape 'dot' is there already; expected another name, or replace=True"):
        shapes.register("dot", Square)
    shapes.register("dot", Square, replace=True)
    assert shapes["dot"] is Square


def test_an_unknown_name_suggests_the_nearest(shapes: Registry[type[Shape]]) -> None:
    with pytest.raises(BadInput, match="unknown shape 'sqare'; did you mean 'square'"):
        shapes["sqare"]


def test_a_field_is_of_the_class_that_its_kind_names(drawing: type[Config], shapes: Registry[type[Shape]]) -> None:
    class Line(Shape):
        kind: Literal["line"] = "line"
        ends: tuple[int, int]

    shapes.register("line", Line)  # after the field was made
    data = {"shape": {"kind": "dot"}, "others": [{"kind": "line", "ends": [1, 2]}], "favourite": "line"}
    found: Any = parse(drawing, data, "a.yaml")
    assert (found.shape, found.others) == (Dot(), (Line(ends=(1, 2)),))
    dumped = '{"shape":{"kind":"dot"},"others":[{"kind":"line","ends":[1,2]}],"favourite":"line"}'
    assert found.model_dump_json() == dumped
    assert found.model_dump()["others"] == ({"kind": "line", "ends": (1, 2)},)
    assert drawing.model_validate_json(dumped) == found
    assert parse(drawing, {"shape": found.shape}, "a.yaml").shape is found.shape  # type: ignore[attr-defined]


def test_a_field_without_a_kind_is_of_the_default(drawing: type[Config]) -> None:
    assert parse(drawing, {"shape": {"side": 2}}, "a.yaml").shape == Square(side=2)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"shape": {"kind": "sqare", "side": 1}}, "key shape.kind: unknown shape 'sqare'; did you mean 'square'?"),
        ({"shape": {"side": "wide"}}, "key shape.side: Input should be a valid integer, unable to parse"),
        ({"shape": {"kind": "dot", "side": 1}}, "key shape.side: Extra inputs are not permitted"),
        ({"shape": {"kind": 3}}, "key shape.kind: Input should be a valid string, got '3'"),
        ({"shape": "dot"}, "key shape: Input should be a valid dictionary, got 'dot'"),
        ({"shape": {"side": 1}, "others": [{"kind": "dot"}, {}]}, "key others.1.kind: Field required"),
        ({"shape": {"side": 1}, "others": [{"kind": "square"}]}, "key others.0.side: Field required"),
        ({"shape": {"side": 1}, "favourite": "dott"}, "key favourite: unknown shape 'dott'; did you mean 'dot'?"),
    ],
)
def test_what_does_not_fit_names_its_key(drawing: type[Config], data: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(drawing, data, "a.yaml")
    assert str(caught.value).startswith(f"a.yaml: {message}")


def test_a_registered_class_extends_the_base(drawing: type[Config], shapes: Registry[Any]) -> None:
    shapes.register("none", Config)
    with pytest.raises(BadInput, match=r"key shape: shape 'none' is .*expected a class that extends Shape"):
        parse(drawing, {"shape": {"kind": "none"}}, "a.yaml")


def test_a_named_module_is_imported_once_a_name_is_missing(
    package: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    package("own_shapes", "from vlm.metrics.protocols import PROTOCOLS\nPROTOCOLS.register('own', lambda p, a: 1.0)")
    from vlm.metrics import protocols

    monkeypatch.setattr(protocols.PROTOCOLS, "_values", dict(protocols.PROTOCOLS._values))
    monkeypatch.setenv(modules.VARIABLE, " own_shapes, ")
    assert protocols.PROTOCOLS["exact"]("a", ["a"]) == 1.0
    assert "own_shapes" not in sys.modules
    assert protocols.PROTOCOLS["own"]("a", ["b"]) == 1.0
    assert "own_shapes" in sys.modules


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("from vlm.errors import BadInput\nraise BadInput('taken')", "does not import: taken"),
    ],
)
def test_a_module_that_does_not_import_is_one_line(
    package: Callable[[str, str], None], code: str, message: str
) -> None:
    package("own_broken", code)
    with pytest.raises(BadInput, match="module 'own_broken' does not import") as caught:
        modules.use("own_broken")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.process
def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """It is imported when a name is missing, or names are listed, and not before."""
    (tmp_path / "installed_shapes.py").write_text(
        "from vlm.media.video.sampling import SAMPLERS, Uniform\nSAMPLERS.register('twin', Uniform)\n"
    )
    about = tmp_path / "installed_shapes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-shapes\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vlm.modules]\nshapes = installed_shapes\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from vlm.media.video.sampling import SAMPLERS\n"
        "SAMPLERS['uniform']; before = 'installed_shapes' in sys.modules\n"
        "print(before, SAMPLERS['twin'].__name__, 'twin' in list(SAMPLERS))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False Uniform True\n"
    (tmp_path / "installed_shapes.py").write_text("1 / 0")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'installed_shapes' of the installed package installed-shapes does not import" in done.stderr


def test_a_card_of_a_model_is_dumped_as_ever() -> None:
    """The name of a card's vector space is made of this JSON: indexes that were filled must stay readable."""
    from vlm.models.config import ModelConfig

    data = yaml.safe_load(cards("configs/models")["nano"].read_text(encoding="utf-8"))["model"]
    dumped = parse(ModelConfig, data, "nano").model_dump_json()
    assert '"projector":{"factor":4,"kind":"pixel_shuffle_mlp","hidden":1024}' in dumped
    digest = hashlib.sha256(dumped.encode()).hexdigest()
    assert digest == "e4f249c0dfe8e0fef5a961c49d48d92db94556a93932b29882dd1acbc632628a"


@pytest.mark.process
def test_nothing_heavy_is_imported_by_a_registry() -> None:
    heavy = ("torch", "numpy", "pydantic", "importlib.metadata")
    code = f"import sys, vlm.registry; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
