"""The commands that the documents show are run, or where they train for an hour, checked as far as their input."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vlm import config

ROOT = Path(__file__).resolve().parents[1]
VLM = Path(sys.executable).parent / "vlm"
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("data/samples/*.md"),
    *ROOT.glob("data/checkpoints/*/*.md"),
]


def commands(language: str) -> list[tuple[str, str]]:
    """(document, command) of every line in a fenced block of this language."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.S):
            lines = [line.split("  #")[0].strip() for line in block.splitlines()]
            found += [(document.name, line) for line in lines if line and not line.startswith("#")]
    return found


SHOWN = commands("bash")
LONG = tuple(
    f"vlm {name}" for name in "train eval calibrate export compare overlap score bench routing experts serve".split()
)
RUN = [command for document, command in SHOWN if document == "README.md" and command.startswith("vlm ")]


def test_the_readme_shows_commands() -> None:
    assert any(command.startswith("vlm caption") for command in RUN)


@pytest.mark.parametrize("command", sorted({c for _, c in SHOWN if c.startswith("make ")}))
def test_make_targets_exist(command: str) -> None:
    for target in command.split()[1:]:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M), target


@pytest.mark.process
@pytest.mark.parametrize("command", sorted({c for _, c in SHOWN if c.startswith(LONG)}))
def test_inputs_of_long_commands_are_there(command: str) -> None:
    words = shlex.split(command)
    if words[1] == "train":
        from vlm.training.recipe import Recipe

        config.load(Recipe, ROOT / words[2], [word for word in words[3:] if "=" in word])
    elif words[1] == "eval" and "--tasks" in words:
        from vlm.evaluation.tasks import cards_of

        assert cards_of(words[words.index("--tasks") + 1].split(","))
    inner = words[1:3] if words[1] in ("score", "serve") else words[1:2]
    helped = subprocess.run([VLM, *inner, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0, helped.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in helped.stdout


@pytest.mark.process
@pytest.mark.weights
def test_the_readme_runs_as_shown(tmp_path: Path) -> None:
    """In order, in one folder, as a reader would type them."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    for command in RUN:
        if command.startswith(LONG):
            continue
        done = subprocess.run(
            [VLM, *shlex.split(command)[1:]],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "120"},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command


PLANS = [command for document, command in SHOWN if document == "scale.md" and "--measure" not in command]


@pytest.mark.process
@pytest.mark.parametrize("command", [command for command in PLANS if command.startswith("vlm plan")])
def test_plans_run_as_shown(command: str, tmp_path: Path) -> None:
    _typed([command], tmp_path)


@pytest.mark.process
@pytest.mark.weights
def test_vectors_are_made_and_indexed_as_shown(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    _typed([command for command in PLANS if not command.startswith("vlm plan")], tmp_path)


@pytest.mark.process
@pytest.mark.weights
@pytest.mark.parametrize("document", ["chat.md", "captions.md", "sessions.md"])
def test_chat_and_captions_run_as_shown(document: str, tmp_path: Path) -> None:
    shown = [command for name, command in SHOWN if name == document]
    _typed([command for command in shown if not command.startswith(("curl", *LONG))], tmp_path)


@pytest.mark.process
@pytest.mark.weights
def test_decisions_are_made_as_shown(tmp_path: Path) -> None:
    shown = [command for document, command in SHOWN if document == "decide.md" and command.startswith("vlm decide")]
    _typed([command for command in shown if "decision.json" not in command], tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "decide.md").read_text(encoding="utf-8"), flags=re.S)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.process
@pytest.mark.weights
def test_a_model_is_fine_tuned_on_pictures_as_shown(tmp_path: Path) -> None:
    """Each command as it stands, but for the number of steps, and a server that would not end."""
    pytest.importorskip("peft", reason="peft is not installed")
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ("cat", "temple", "panda", "rocket")
    for name in names:
        (photos / f"{name}.jpg").symlink_to(ROOT / "data" / "samples" / f"{name}.jpg")
    (photos / "labels.csv").write_text("file,label\n" + "".join(f"{name}.jpg,a {name}\n" for name in names))
    shown = [command for document, command in SHOWN if document == "fine-tune-your-pictures.md"]
    assert [command.split()[1] for command in shown] == ["data", "data", "train", "export", "ask", "serve"]
    _typed([f"{command} steps=2 batch=2" if " train " in command else command for command in shown[:-1]], tmp_path)
    assert (tmp_path / "adapters" / "mine" / "adapter_model.safetensors").stat().st_size < 30e6
    assert (tmp_path / "sheet.png").is_file()


def _typed(commands: list[str], folder: Path) -> None:
    for name in ("data", "configs"):
        (folder / name).symlink_to(ROOT / name)
    for command in commands:
        done = subprocess.run([VLM, *shlex.split(command)[1:]], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command


@pytest.mark.process
@pytest.mark.weights
def test_sessions_in_python_run_as_shown(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")
    page = (ROOT / "docs" / "sessions.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.process
@pytest.mark.weights
def test_the_readme_python_runs_as_shown(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    code = block + "\nassert scores.shape == (1, 2) and scores[0, 0] > scores[0, 1]\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
