"""Configs: one line that names the file, the key and what was expected; overrides as `key.sub=value`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError, model_validator

from vlm.config import Config, load, parse, read_yaml
from vlm.errors import BadInput


class Optimiser(Config):
    name: str = "adamw"
    rate: float


class Recipe(Config):
    steps: int
    optimiser: Optimiser
    tags: tuple[str, ...] = ()


GOOD = "steps: 10\noptimiser:\n  rate: 0.001\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def test_load(recipe: Path) -> None:
    assert load(Recipe, recipe) == Recipe(steps=10, optimiser=Optimiser(rate=0.001))


def test_a_config_cannot_be_changed(recipe: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(Recipe, recipe).steps = 11


@pytest.mark.parametrize(
    ("data", "key", "expected"),
    [
        ({"steps": 1, "optimiser": {"rate": 1}, "stepz": 2}, "stepz", "Extra inputs are not permitted"),
        ({"optimiser": {"rate": 1}}, "steps", "Field required"),
        ({"steps": 1, "optimiser": {}}, "optimiser.rate", "Field required"),
        ({"steps": "many", "optimiser": {"rate": 1}}, "steps", "valid integer.*got 'many'"),
        ({"steps": 1, "optimiser": {"rate": 1}, "tags": ["a", 2]}, "tags.1", "valid string.*got '2'"),
        (None, "(top level)", "valid dictionary"),
        ([1], "(top level)", "valid dictionary"),
    ],
)
def test_an_error_names_the_file_the_key_and_what_was_expected(data: Any, key: str, expected: str) -> None:
    with pytest.raises(BadInput, match=expected) as caught:
        parse(Recipe, data, "recipes/a.yaml")
    assert str(caught.value).startswith(f"recipes/a.yaml: key {key}: ")
    assert "\n" not in str(caught.value)


def test_a_check_of_our_own_says_it_all() -> None:
    class Range(Config):
        low: int
        high: int

        @model_validator(mode="after")
        def _in_order(self) -> Range:
            if self.low > self.high:
                raise ValueError(f"low {self.low} is more than high {self.high}")
            return self

    with pytest.raises(BadInput) as caught:
        parse(Range, {"low": 2, "high": 1}, "a.yaml")
    assert str(caught.value) == "a.yaml: key (top level): low 2 is more than high 1"


def test_a_long_value_is_cut() -> None:
    with pytest.raises(BadInput) as caught:
        parse(Recipe, {"steps": "x" * 5000, "optimiser": {"rate": 1}}, "a.yaml")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("content", [b"a: [1", b"a: 1\n b: 2", b"\xff\xfe\x00", b"!!python/object:os.system {}"])
def test_what_is_not_yaml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"bad\.yaml: not a YAML file") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.yaml: no such file"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a file"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["steps=20"], {"steps": 20}),
        (["optimiser.rate=1.0e-4"], {"optimiser": Optimiser(rate=1e-4)}),
        (["optimiser.name=sgd", "optimiser.rate=2"], {"optimiser": Optimiser(name="sgd", rate=2)}),
        (["tags=[a, b=c]"], {"tags": ("a", "b=c")}),
        (["steps=20", "steps=30"], {"steps": 30}),
        ([], {}),
    ],
)
def test_overrides(recipe: Path, overrides: list[str], expected: dict[str, Any]) -> None:
    assert load(Recipe, recipe, overrides) == load(Recipe, recipe).model_copy(update=expected)
    assert recipe.read_text() == GOOD


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "override 'steps': expected key=value"),
        ("steps.more=1", r"override 'steps\.more=1': 'steps\.more' is not a key of .*recipe\.yaml"),
        ("steps.more.still=1", r"'steps\.more\.still' is not a key of .*recipe\.yaml"),
        ("stepz=1", r"recipe\.yaml: key stepz: Extra inputs"),
        ("optimiser.rat=1", r"recipe\.yaml: key optimiser\.rat: Extra inputs"),
        ("steps=many", r"recipe\.yaml: key steps: .*valid integer"),
        ("tags=[a", r"override 'tags=\[a': not YAML"),
    ],
)
def test_a_wrong_override(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(Recipe, recipe, [override])
