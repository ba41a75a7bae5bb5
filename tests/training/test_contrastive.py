"""Contrastive recipes: each objective learns, and keeps what it promises."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from contrastive_recipes import built, curve, falls, gradients, recipe, write_place
from safetensors.torch import load_file
from torch import distributed as dist
from torch import multiprocessing

from vlm.alignment.losses import clip_loss
from vlm.errors import BadInput
from vlm.heads.retrieval import Embedder
from vlm.models.assemble import assemble
from vlm.models.card import load_card
from vlm.models.trained import apply_trained, read_trained
from vlm.training.loop import train
from vlm.training.objectives.contrastive.batches import Batches, mined
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.contrastive.sides import padded
from vlm.training.objectives.contrastive.task import ContrastiveTask
from vlm.training.stages import build_stage


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("contrastive"))


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(place / "cache"))


OBJECTIVES: dict[str, dict[str, Any]] = {
    "clip": {},
    "siglip": {"loss": "siglip"},
    "clip in chunks": {"chunk": 5},
    "siglip in chunks": {"loss": "siglip", "chunk": 5},
    "one caption": {"captions": 1},
    "widths": {"widths": [4, 16]},
    "hard": {"hard": {"nearest": 1, "swapped": True}},
    "locked tower": {"locked": "image"},
    "nothing locked": {"locked": "none", "cached": 4},
    "language model as text tower": {"text": "language"},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_falls_and_what_is_frozen_stays(place: Path, tmp_path: Path, name: str) -> None:
    made = recipe(place, OBJECTIVES[name])
    stage = build_stage(made, lambda text: None, offline=True)
    assert isinstance(stage.task, ContrastiveTask)
    learned = stage.task.trainable()
    before = {key: tensor.clone() for key, tensor in stage.task.parts.named().items()}
    figures = train(made, stage, tmp_path)
    assert falls(tmp_path)
    assert 1 <= figures["scale"] <= 100
    assert ("bias" in figures) == ("siglip" in name)
    kinds = {key.split(".")[0] for key in learned}
    unlocked = {"locked tower": {"text_encoder"}, "nothing locked": {"text_encoder", "tower"}}
    assert kinds == {"alignment"} | unlocked.get(name, set())
    changed = {key.split(".")[0] for key, tensor in stage.task.parts.named().items() if not tensor.equal(before[key])}
    assert changed == kinds
    # A fresh model with the file computes what the trained one computes.
    fresh = assemble(load_card(made.model or ""), offline=True)
    if name != "language model as text tower":
        apply_trained(fresh.named(), read_trained(tmp_path / "weights.safetensors"), "weights")
        texts = ["a red square", "a black cat"]
        stage.task.parts.model.eval()
        assert (Embedder.of(fresh).embed_texts(texts) == Embedder.of(stage.task.parts).embed_texts(texts)).all()


def test_a_plain_recipe_is_one_loss_over_heads(place: Path) -> None:
    """Restated without the task's parts: the same number, to the last bit."""
    task = built(recipe(place, {"captions": 2}))
    heads, features = task.heads, task.images.features  # type: ignore[attr-defined]
    train = task.batches.examples
    torch.manual_seed(0)
    loss = task.loss(3)
    picks = random.Random("0/1").sample(range(16), 16)[8:]  # two batches an epoch
    rng = random.Random("0/3")
    tokens, pooled, texts, owners = [], [], [], []
    for row, pick in enumerate(picks):
        chosen = rng.sample(range(2), 2)
        flipped = rng.random() < 0.5
        tokens.append(features.tokens(train[pick].pictures, flipped)[0])
        pooled.append(features.pooled(train[pick].pictures, flipped)[0])
        texts += [task.texts.states[pick][c] for c in chosen]  # type: ignore[attr-defined]
        owners += [row] * 2
    image = heads.embed_images(torch.stack(tokens), torch.stack(pooled))
    wanted = clip_loss(image, heads.embed_texts(*padded(texts)), torch.tensor(owners), heads.scale)
    assert torch.equal(loss, wanted)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("other", [{"chunk": 3}, {"cached": 3}, {"chunk": 2, "cached": 5}])
def test_frugal_ways_give_the_plain_gradients(place: Path, loss: str, other: dict[str, int]) -> None:
    same = {"loss": loss, "captions": 2, "hard": {"swapped": True}, "widths": [8, 16]}
    plain, frugal = (gradients(built(recipe(place, same | more))) for more in ({}, other))
    assert plain.keys() == frugal.keys()
    for name, wanted in plain.items():
        torch.testing.assert_close(frugal[name], wanted, rtol=1e-4, atol=1e-6)


def test_hard_batches_hold_lookalikes_and_swapped_words(place: Path) -> None:
    task = built(recipe(place, {"captions": 1, "hard": {"nearest": 1, "swapped": True}}, mirror=False))
    batch, nearest = task.batches(0), task.batches.nearest
    assert nearest is not None
    assert len(batch.picks) == len(set(batch.picks)) == 8
    for drawn, follower in zip(batch.picks[::2], batch.picks[1::2], strict=True):
        assert follower in nearest[drawn]
    said = [task.batches.texts[row][number] for row, number in batch.texts]
    for place_of, owner in enumerate(batch.owners_T.tolist()):
        assert (owner == -1) == (place_of % 2 == 1)
        if owner == -1:
            assert sorted(said[place_of].lower().split()) == sorted(said[place_of - 1].lower().split())
            assert said[place_of] != said[place_of - 1]
    assert task.batches(1) != batch
    assert str(task.batches(0)) == str(batch)


def test_mined_are_the_nearest_others() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert [row[0] for row in mined(rows, 1, block=3)] == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"locked": "image", "text": "language"}, "expected text: encoder"),
        ({"distill": {"teacher": "nowhere"}}, "nowhere: expected a dual encoder"),
        ({"clips": {"frames": 0}}, "clips.frames"),
        ({"dataset": "clips"}, "is a clip; expected pictures"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(place: Path, objective: dict[str, Any], message: str) -> None:
    if objective.get("dataset") == "clips":
        objective = {"dataset": str(place / "data" / "clips.yaml")}
    with pytest.raises((BadInput, ValueError), match=message):
        build_stage(recipe(place, objective), lambda text: None, offline=True)


def test_a_text_tower_learns_only_where_there_is_one(place: Path) -> None:
    with pytest.raises(BadInput, match=r"alignment\.text is encoder"):
        build_stage(
            recipe(place, {"locked": "image"}, model=str(place / "model" / "tiny.yaml")), lambda text: None, True
        )


def test_texts_and_pictures_are_shared_out_whole() -> None:
    objective = ContrastiveObjective(kind="contrastive", dataset="x", captions=2)
    examples = [_example(number, 1 + number % 2) for number in range(5)]
    batch = Batches(examples, objective, batch=5, seed=0, mirror=False)(0)
    shares = [batch.share(rank, 3) for rank in range(3)]
    assert [p for pictures, _ in shares for p in batch.picks[pictures]] == batch.picks
    assert [t for _, texts in shares for t in batch.texts[texts]] == batch.texts
    for pictures, texts in shares:
        assert {row for row, _ in batch.texts[texts]} == set(batch.picks[pictures])


def _example(number: int, captions: int) -> Any:
    from vlm.datasets.examples import Example

    return Example(id=str(number), image=Path(f"{number}.png"), captions=("a dog",) * captions)


def _process(rank: int, place: str) -> None:
    import os

    os.environ["VLM_CACHE"] = f"{place}/cache"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    made = recipe(Path(place), {"captions": 2, "hard": {"swapped": True}, "locked": "image"}, steps=3, batch=7)
    train(made, build_stage(made, lambda text: None, offline=True), Path(place) / "two")
    dist.destroy_process_group()


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_train_what_one_does(place: Path) -> None:
    made = recipe(place, {"captions": 2, "hard": {"swapped": True}, "locked": "image"}, steps=3, batch=7)
    train(made, build_stage(made, lambda text: None, offline=True), place / "one")
    multiprocessing.spawn(_process, args=(str(place),), nprocs=2)
    one, two = (load_file(place / run / "weights.safetensors") for run in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
    assert curve(place / "two") == pytest.approx(curve(place / "one"), abs=1e-3)
