"""A model learns from a teacher: the divergences are the papers', and each model reads its own prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch.nn import functional as F

from vlm.cli import main
from vlm.errors import BadInput
from vlm.training.divergences import divergence, head_divergence
from vlm.training.loop import train
from vlm.training.objectives.distil import DistilTask
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))  # the random folders of the families' own tests
import random_smolvlm as smolvlm

KINDS = ["forward", "reverse", "skewed", "skewed_reverse"]


def plain(student: torch.Tensor, teacher: torch.Tensor, kind: str, skew: float, temperature: float) -> torch.Tensor:
    """By the definition of KL, from chances."""
    q, p = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    first, second = {
        "forward": (p, q),
        "reverse": (q, p),
        "skewed": (p, skew * p + (1 - skew) * q),
        "skewed_reverse": (q, (1 - skew) * p + skew * q),
    }[kind]
    return (first * (first / second).log()).sum() * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_is_what_its_paper_says(kind: Any, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(9, 30, generator=generator) for _ in range(2))
    ours = divergence(student, teacher, kind, 0.2, temperature)
    expected = plain(student.double(), teacher.double(), kind, 0.2, temperature)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)
    assert float(divergence(student, student, kind, 0.2, temperature)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("piece", [1, 4, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_in_pieces_it_is_the_same(kind: Any, piece: int) -> None:
    """The teacher's head has more rows, which are cut; nothing of the teacher gets a gradient."""
    generator = torch.Generator().manual_seed(0)
    states, head, theirs, their_head = (
        torch.randn(shape, generator=generator).requires_grad_() for shape in ((11, 6), (20, 6), (11, 8), (23, 8))
    )
    own = [states.detach().clone().requires_grad_(), head.detach().clone().requires_grad_()]
    ours = head_divergence(
        states, head, None, theirs, their_head, None, kind=kind, skew=0.1, temperature=2.0, piece=piece
    )
    expected = divergence(F.linear(*own), F.linear(theirs, their_head)[:, :20].detach(), kind, 0.1, 2.0)
    torch.testing.assert_close(ours, expected)
    ours.backward()
    expected.backward()
    torch.testing.assert_close(states.grad, own[0].grad)
    torch.testing.assert_close(head.grad, own[1].grad)
    assert theirs.grad is None
    assert their_head.grad is None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card, pictures with captions, and a teacher: the card's model after some steps."""
    pytest.importorskip("peft")
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    tiny.write_card(tmp_path / "model")
    tiny.write_data(tmp_path / "data", pictures=16)
    taught = recipe(tmp_path, kind="instruct", output="taught", steps=12)
    train(taught, build_stage(taught, lambda line: None, offline=True), tmp_path / "taught")
    card = str(tmp_path / "model" / "tiny.yaml")
    assert main(["export", str(tmp_path / "taught"), "--model", card, "--to", str(tmp_path / "teacher")]) == 0
    return tmp_path


def recipe(place: Path, steps: int = 3, output: str = "run", **changes: Any) -> Recipe:
    sources = [{"dataset": str(place / "data" / "squares.yaml"), "use": "captions", "branches": 2}]
    objective = {"kind": "distil", "sources": sources, "sampled_words": 0, **changes}
    if objective["kind"] == "distil":
        objective.setdefault("teacher", str(place / "teacher"))
    data = {
        "model": str(place / "model" / "tiny.yaml"), "data": str(place / "data"), "output": str(place / output),
        "objective": objective, "steps": steps, "batch": 4, "optimizer": {"lr": 0.02}, "device": "cpu",
        "validate_every": 100, "log_every": 1,
    }  # fmt: skip
    return Recipe.model_validate(data)


@pytest.mark.parametrize("kind", KINDS)
def test_the_student_comes_nearer_to_its_teacher(place: Path, kind: str) -> None:
    wanted = recipe(place, steps=12, divergence=kind, weight=1.0, length=512)
    train(wanted, build_stage(wanted, lambda line: None, offline=True), place / "run")
    rows = [json.loads(line) for line in (place / "run" / "log.jsonl").read_text().splitlines()]
    found = [row["divergence"] for row in rows]
    assert sum(found[-3:]) < 0.5 * sum(found[:3])
    assert "caption_loss" in rows[-1]


def test_who_learns_from_itself_learns_nothing(place: Path) -> None:
    wanted = recipe(place, weight=1.0).model_copy(update={"model": str(place / "teacher")})
    task = build_stage(wanted, lambda line: None, offline=True).task
    assert isinstance(task, DistilTask)
    task.model.eval()
    assert float(task.backward(0)) == pytest.approx(0, abs=1e-4)
    assert all(float(p.grad.abs().max()) < 1e-4 for p in task.trainable().values() if p.grad is not None)


def test_the_weight_is_between_both_losses(place: Path) -> None:
    def loss(**changes: Any) -> float:
        task = build_stage(recipe(place, **changes), lambda line: None, offline=True).task
        assert isinstance(task, DistilTask)
        task.model.eval()
        return float(task.backward(0))

    alone = build_stage(recipe(place, kind="instruct"), lambda line: None, offline=True).task
    alone.model.eval()  # type: ignore[attr-defined]
    replies = float(alone.backward(0))
    whole = loss(weight=1.0)
    assert whole > 0.1
    assert loss(weight=0.25) == pytest.approx(0.25 * whole + 0.75 * replies, rel=1e-4)


def test_a_teacher_reads_its_own_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sees a picture in tiles, the other as a whole; both say the same words."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    tiny.write_data(tmp_path / "data", pictures=16)
    card = tiny.write_card(tmp_path / "model")
    tiles = card.with_name("tiles.yaml")
    tiles.write_text(card.read_text().replace("model:\n", "model:\n  tiles: {most: 4}\n", 1))
    for path in (tmp_path / "data").rglob("*.png"):
        with Image.open(path) as image:
            image.resize((4 * image.width, image.height)).save(path)
    wanted = recipe(tmp_path, teacher=str(tiles))
    task = build_stage(wanted, lambda line: None, offline=True).task
    assert isinstance(task, DistilTask)
    items = task._items(0)
    taught = {id(item): task._taught[id(item)] for item in items}
    assert all(
        theirs[0][0].packed.tokens > item.packed.tokens for item, theirs in zip(items, taught.values(), strict=True)
    )
    assert all(
        [one.packed.replies[number] for one, number in taught[id(item)]] == item.packed.replies for item in items
    )
    assert float(task.backward(0)) > 0


def test_other_tokens_are_refused(place: Path) -> None:
    folder = place / "other"
    smolvlm.write_folder(folder)
    with pytest.raises(BadInput, match="expected a model with the same tokens"):
        build_stage(recipe(place, teacher=str(folder)), lambda line: None, offline=True)
