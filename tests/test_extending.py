"""The examples of `docs/extending.md`, each in use: the page's Python blocks are a package, its cards a folder."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from vlm import assets, config, modules
from vlm.errors import BadInput
from vlm.registry import Registry

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
VLM = [sys.executable, "-c", "import sys; from vlm.cli import main; sys.exit(main())"]
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


def registries() -> list[Registry[Any]]:
    """Those of the page's table."""
    rows = re.findall(r"^\| .* \| `(vlm\.[\w.]+)\.([A-Z_]+)` \|", PAGE, flags=re.M)
    return [getattr(import_module(module), name) for module, name in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the page's package and cards, and the data of its data set."""
    folder = tmp_path_factory.mktemp("extending")
    names = []
    for block in (*blocks("python"), *blocks("yaml")):
        if found := re.match(r"# ((?:my_package|cards)/\S+)\n", block):
            path = folder / found[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
            names += [path.stem] if path.suffix == ".py" else []
    (folder / "my_package" / "__init__.py").write_text("".join(f"from my_package import {n}\n" for n in names))
    home = folder / "data" / "lines"
    home.mkdir(parents=True)
    for name, color in COLORS.items():
        Image.new("RGB", (32, 32), color).save(home / f"{name}.png")
    (home / "test.txt").write_text("".join(f"{name}.png|{name}\n" for name in COLORS))
    return folder


@pytest.fixture
def package(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, imported; afterwards the registries are as they were."""
    monkeypatch.chdir(place)
    monkeypatch.setenv(modules.VARIABLE, "")
    monkeypatch.setenv(assets.VARIABLE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for registry in registries():
        monkeypatch.setattr(registry, "_values", dict(registry._values))
    modules.use("my_package")
    assets.use("cards")
    yield sys.modules["my_package"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def run(place: Path, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in (modules.VARIABLE, assets.VARIABLE)}
    done = subprocess.run(
        [*VLM, *arguments], cwd=place, capture_output=True, text=True, env={**kept, "COLUMNS": "160", **environment}
    )
    assert done.returncode == code, done.stderr
    return done


def test_each_block_is_a_file_or_a_part_of_a_card(place: Path) -> None:
    wanted = "engine family language objective projector protocol reader sampler task_type tower"
    assert sorted(path.stem for path in (place / "my_package").glob("[a-z]*.py")) == wanted.split()
    for block in blocks("python"):
        ast.parse(block)
        assert block.startswith("# my_package/")


def test_the_page_lists_every_registry() -> None:
    files = [path for path in Path(assets.__file__).parent.rglob("*.py") if path.name != "registry.py"]
    made = [line for path in files for line in re.findall(r"^[A-Z_]+: Registry\[", path.read_text(), flags=re.M)]
    assert len(registries()) == len(made)
    assert all(isinstance(registry, Registry) for registry in registries())


def test_a_card_that_names_the_projector_builds(package: Any, tmp_path: Path) -> None:
    import tiny

    from vlm.models.assemble import assemble
    from vlm.models.card import load_card

    path = tiny.write_card(tmp_path / "tiny")
    (snippet,) = [block for block in blocks("yaml") if block.startswith("projector:")]
    card = yaml.safe_load(path.read_text())
    card["model"] |= yaml.safe_load(snippet)
    path.write_text(yaml.safe_dump(card))
    model = assemble(load_card(str(path)), offline=True).model
    assert type(model.projector) is package.projector.MeanLinear
    assert model.projector(torch.randn(2, 16, 64)).shape == (2, 4, 32)
    path.write_text(yaml.safe_dump(card | {"model": card["model"] | {"projector": {"kind": "mean_liner"}}}))
    with pytest.raises(
        BadInput, match=r"key model\.projector\.kind: unknown projector 'mean_liner'; did you mean 'mean_linear"
    ):
        load_card(str(path))


def test_a_folder_of_the_tower_library_is_read(package: Any, tmp_path: Path) -> None:
    from vlm.vision import towers

    about = {"name": "p8", "image_size": 32, "patch": 8, "width": 12, "activation": "gelu", "mean": [0.5] * 3}
    (tmp_path / "patches.json").write_text(json.dumps({**about, "std": [0.5] * 3}))
    weights = {"weight": torch.randn(12, 3, 8, 8), "bias": torch.randn(12)}
    save_file(weights, tmp_path / "model.safetensors")
    assert towers.layout(tmp_path) == ["patches"]
    tower = towers.load(tmp_path)
    pixels = tower.preprocess([Image.new("RGB", (50, 40), "red")])
    assert tower(pixels).tokens_BND.shape == (1, 16, 12)
    assert torch.equal(tower.conv.weight, weights["weight"])
    with pytest.raises(BadInput, match="expected the files of open_clip, patches, timm, torchvision or transformers"):
        towers.load(tmp_path / "..")


def test_a_language_model_is_written_and_read_as_the_family(package: Any, tmp_path: Path) -> None:
    import tiny

    from vlm.language import load, save
    from vlm.language.config.mixture import MoEConfig

    model = tiny.language(MoEConfig(experts=4, top_k=2, width=8, scoring="softmax", balanced=False, first_dense=1))
    save(model, tmp_path, format="my_moe")
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("my_moe", ["MyMoeForCausalLM"])
    again = load(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_recipe_that_names_the_objective_parses(package: Any) -> None:
    from vlm.training.recipe import Recipe

    path = assets.find_card("configs/train", "brightness", "recipe")
    recipe = config.load(Recipe, path, ["objective.weight=2"])
    assert recipe.objective == package.objective.BrightnessObjective(dataset="lines", weight=2)
    with pytest.raises(BadInput, match=r"key objective\.weight: .*greater than 0, got '-1'"):
        config.load(Recipe, path, ["objective.weight=-1"])


def test_the_objective_trains(package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny

    from vlm.training.loop import train
    from vlm.training.recipe import Recipe
    from vlm.training.stages import build_stage

    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    squares = tiny.write_data(tmp_path / "data")
    changes = {"model": tiny.write_card(tmp_path / "model"), "data": tmp_path / "data", "output": tmp_path / "run"}
    asked = [*(f"{key}={value}" for key, value in changes.items()), f"objective.dataset={squares}", "steps=20"]
    recipe = config.load(Recipe, assets.find_card("configs/train", "brightness", "recipe"), [*asked, "device=cpu"])
    stage = build_stage(recipe, lambda line: None, offline=True)
    first = float(stage.task.loss(0))
    assert train(recipe, stage, tmp_path / "run")["loss"] < first
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"log.jsonl", "weights.safetensors"}


def test_the_family_loads(package: Any, tmp_path: Path) -> None:
    sys.path.append(str(Path(__file__).parent / "families"))
    import random_smolvlm

    import vlm

    random_smolvlm.write_folder(tmp_path / "ours")
    random_smolvlm.write_folder(tmp_path / "whole", splitting=False)
    described = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(json.dumps(described | {"model_type": "my_vlm"}))
    picture = Image.new("RGB", (90, 50), "red")
    mine, theirs = vlm.load(tmp_path / "ours"), vlm.load(tmp_path / "whole")
    assert mine.caption([picture], max_tokens=5) == theirs.caption([picture], max_tokens=5)
    assert mine.budget([picture])[0].visual == theirs.budget([picture])[0].visual


def test_the_benchmark_runs_on_the_data_set_that_the_reader_reads(package: Any) -> None:
    sys.path.append(str(Path(__file__).parent / "evaluation"))
    from squares import FakeModel

    from vlm.evaluation.run import Options, evaluate

    model = FakeModel(lambda color, question: f"a {color} square" if color == "red" else "a square")
    (result,) = evaluate(model, ["mentions"], Options("data"))  # type: ignore[arg-type]
    assert (result.main, result.figures["mentioned"].value) == ("mentioned", 50.0)
    Path("data/lines/other.txt").write_text("red.png\n")
    from vlm.datasets.examples import load_card

    card = load_card("lines").model_copy(update={"splits": {"other": None}})
    with pytest.raises(BadInput, match=r"other\.txt:1: expected NAME\|ANSWER, got 'red\.png'"):
        card.read(Path("data"), "other")


def test_the_index_engine_keeps_an_index(package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm.index import create_index, drop_index, open_index, there

    monkeypatch.setattr(package.engine, "gettempdir", lambda: str(tmp_path))
    index = create_index("scratch://photos", 4, "m")
    index.upsert(["a"], np.eye(1, 4, dtype=np.float32))
    index.commit()
    index.close()
    assert there("scratch://photos")
    assert [hit.id for hit in open_index("scratch://photos").search(np.eye(1, 4, dtype=np.float32), 1)[0]] == ["a"]
    drop_index("scratch://photos")
    assert not there("scratch://photos")
    with pytest.raises(BadInput, match="expected a place for scratch, got one for flat or lance"):
        create_index(tmp_path / "folder", 4, "m", engine="scratch")


def test_the_sampler_is_chosen_in_words_and_in_a_card(package: Any) -> None:
    from vlm.media.video.config import VideoConfig
    from vlm.media.video.sampling import load_clip, parse_sampling

    clip = assets.root() / "data" / "samples" / "city_at_night.mp4"
    found = load_clip(clip, sampling=parse_sampling("opening:seconds=1", frames=3))
    assert len(found.times) == 3
    assert max(found.times) - min(found.times) < 1
    card = config.parse(VideoConfig, {"sampling": {"kind": "opening", "seconds": 1}}, "a.yaml")
    assert card.sampling == package.sampler.Opening(seconds=1)


@pytest.mark.process
def test_the_protocol_scores_files(place: Path) -> None:
    (place / "p.json").write_text(json.dumps({"1": "red square", "2": "blue"}))
    (place / "a.json").write_text(json.dumps({"1": ["red one"], "2": ["green"]}))
    scoring = ["--predictions", "p.json", "--answers", "a.json", "--protocol", "first_word", "--json"]
    done = run(place, "score", "vqa", *scoring, "--module", "my_package")
    assert json.loads(done.stdout)["metrics"]["accuracy"] == 50.0
    done = run(place, "score", "vqa", *scoring, code=2)
    assert "unknown protocol 'first_word'" in done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("eval", "--list", "--module", "my_package", "--cards", "cards"), {}),
        (("--module", "my_package", "--cards", "cards", "eval", "--list"), {}),
        (("--cards=cards", "eval", "--list", "--module=my_package"), {}),
        (("eval", "--list"), {"VLM_MODULES": "my_package", "VLM_CARDS": "cards"}),
    ],
)
def test_the_benchmark_is_listed_with_where_it_is_from(
    place: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    listed = json.loads(run(place, *arguments, "--json", **environment).stdout)["benchmarks"]
    places = {one["name"]: one["from"] for one in listed}
    assert places["mentions"] == str(place / "cards" / "eval" / "mentions.yaml")
    assert places["chartqa"] == "vlm"


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "--list", "--cards", "cards"), "mentions.yaml: key kind: unknown kind of benchmark 'mentions'"),
        (("models", "--module", "my_pakage"), "module 'my_pakage' does not import: ModuleNotFoundError"),
        (("--module", "my_pakage", "models"), "module 'my_pakage' does not import: ModuleNotFoundError"),
        (("models", "--cards", "data"), "expected a folder of cards with models, data, eval or train in it"),
        (("models", "--cards", "absent"), "absent: expected a folder of cards with models, data, eval or train"),
    ],
)
def test_what_is_not_there_is_one_line(place: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(place, *arguments, code=2)
    assert message in done.stderr
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)


COMMANDS = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]


@pytest.mark.process
@pytest.mark.parametrize("words", [words for words in COMMANDS if "nano" not in words], ids=" ".join)
def test_the_commands_of_the_page_run(place: Path, words: list[str]) -> None:
    (place / "other.py").touch()
    start = words.index("vlm")
    done = run(place, *words[start + 1 :], **dict(word.split("=") for word in words[:start]))
    assert ("mentions" in done.stdout) == ("eval" in words and "--cards" in words)
