"""Contrastive recipes: each objective learns, and keeps what it promises."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import dual
import pytest
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import distributed as dist
from torch import multiprocessing
from transformers import BertConfig, BertModel

from vlm.alignment.losses import clip_loss
from vlm.conversation.template import CAPTION_PROMPT, tidy
from vlm.errors import BadInput
from vlm.heads.retrieval import Embedder
from vlm.media.images import load_image
from vlm.media.open import Media, open_media
from vlm.models.assemble import assemble
from vlm.models.card import load_card
from vlm.models.trained import apply_trained, read_trained
from vlm.training.loop import train
from vlm.training.objectives.contrastive.batches import Batches, View, mined
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.contrastive.sides import padded
from vlm.training.objectives.contrastive.task import ContrastiveTask
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two model cards (texts read by the language model, or by an encoder), data, clips and a teacher."""
    folder = tmp_path_factory.mktemp("contrastive")
    path = tiny.write_card(folder / "model")
    tiny.write_data(folder / "data", pictures=20)
    _write_clips(folder / "data")
    dual.save_dual(folder / "teacher")
    _write_encoder_card(path, folder / "model")
    return folder


def _write_encoder_card(language_card: Path, folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(dual.WORDS), **sizes)).save_pretrained(folder / "text")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dual.WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "text" / "tokenizer.json"))
    card = yaml.safe_load(language_card.read_text())
    card["model"]["alignment"]["text"] = "encoder"
    files = {name: {"path": name} for name in ("model.safetensors", "config.json", "tokenizer.json")}
    source = {"path": str(folder / "text"), "format": "hf", "files": files}
    card["parts"]["text"] = {"licence": "none", "about": "text", "sources": [source]}
    (folder / "encoder.yaml").write_text(yaml.safe_dump(card))


def _write_clips(folder: Path) -> None:
    """Two colours after one another: only their order tells half of the clips from the other half."""
    home = folder / "clips"
    home.mkdir()
    lines = []
    for number, (first, second) in enumerate([(a, b) for a in tiny.COLORS for b in tiny.COLORS if a != b]):
        frames = [f"{number}-{i}.png" for i in range(4)]
        for i, name in enumerate(frames):
            Image.new("RGB", (40, 40), tiny.COLORS[first if i < 2 else second]).save(home / name)
        for split in ("train", "val"):
            clip = {"video": f"{split}-{number}", "frames": frames, "split": split}
            lines.append({**clip, "captions": [f"{first} square and {second} cat"]})
    (home / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = {"about": "colours in turn", "licence": "none", "source": "made by the test", "folder": "clips"}
    card = {"name": "clips", "annotations": "clips.jsonl", "splits": {"train": 12, "val": 12}, **common}
    (folder / "clips.yaml").write_text(yaml.safe_dump(card))


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(place / "cache"))


def recipe(place: Path, objective: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    data = {
        "model": str(place / "model" / "encoder.yaml"), "data": str(place / "data"), "output": "run", "mirror": True,
        "objective": {"kind": "contrastive", "dataset": str(place / "data" / "squares.yaml"), **(objective or {})},
        "steps": 24, "batch": 8, "optimizer": {"lr": 0.01}, "save_every": 100, "validate_every": 100, "log_every": 1,
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def built(made: Recipe) -> ContrastiveTask:
    task = build_stage(made, lambda text: None, offline=True).task
    assert isinstance(task, ContrastiveTask)
    return task


def curve(run: Path, key: str = "loss") -> list[float]:
    return [json.loads(line)[key] for line in (run / "log.jsonl").read_text().splitlines()]


def falls(run: Path, key: str = "loss", to: float = 0.9) -> bool:
    values = curve(run, key)
    return sum(values[-5:]) < to * sum(values[:5])


def gradients(task: ContrastiveTask, step: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    task.backward(step)
    return {name: p.grad.clone() for name, p in task.trainable().items() if p.grad is not None}


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


def test_a_teachers_similarities_are_learned(place: Path, tmp_path: Path) -> None:
    made = recipe(place, {"captions": 1, "distill": {"teacher": str(place / "teacher"), "weight": 5.0}}, mirror=False)
    train(made, build_stage(made, lambda text: None, offline=True), tmp_path)
    assert falls(tmp_path)
    assert set(json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])) >= {"clip_loss", "distillation_loss"}
    # Alone, it brings the student's softmax near to the teacher's.
    values = curve(tmp_path, "distillation_loss")
    assert sum(values[-5:]) < sum(values[:5])


def test_captions_are_written_beside_and_the_language_model_stays(place: Path, tmp_path: Path) -> None:
    made = recipe(
        place, {"write": {"weight": 1.0, "pictures": 4}}, optimizer={"lr": 0.01, "lr_of": {"projector.": 0.05}}
    )
    stage = build_stage(made, lambda text: None, offline=True)
    language = {name: p.clone() for name, p in stage.task.parts.model.language.named_parameters()}  # type: ignore[attr-defined]
    train(made, stage, tmp_path)
    assert falls(tmp_path, "caption_loss", 0.97)
    kinds = {name.split(".")[0] for name in load_file(tmp_path / "weights.safetensors")}
    assert kinds == {"alignment", "projector"}
    for name, p in stage.task.parts.model.language.named_parameters():  # type: ignore[attr-defined]
        assert torch.equal(p, language[name])


@torch.no_grad()
def test_the_caption_loss_is_the_mean_over_all_words_of_the_first_captions(place: Path) -> None:
    """CoCa's equation 3, restated: one sequence at a time, no packing."""
    task = built(recipe(place, {"captions": 2, "write": {"weight": 1.0, "pictures": 3}}, mirror=False))
    batch, model = task.batches(0), task.parts.model
    assert task.written is not None
    processor, losses = task.parts.processor, []
    for row, view in enumerate(batch.views[:3]):
        example, number = next(text for text, owner in zip(batch.texts, batch.rows, strict=True) if owner == row)
        picture = open_media(view.pictures[0])
        prompt = processor.lay_out(processor.asked(CAPTION_PROMPT, picture), [picture]).ids
        reply = processor.reply(tidy(task.batches.texts[example][number]))
        seen = task.images.states([view])[0]
        chances = tiny.logits(model, torch.tensor([prompt + reply]), seen.float())[0].log_softmax(dim=-1)
        losses += [-chances[len(prompt) + i - 1, token].item() for i, token in enumerate(reply)]
    assert task.written(batch).item() == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_clips_are_told_by_the_order_of_their_frames(place: Path, tmp_path: Path) -> None:
    clips = {"dataset": str(place / "data" / "clips.yaml"), "captions": 1, "clips": {"frames": 4, "order": 1.0}}
    made = recipe(place, clips, mirror=False, steps=80, batch=12, optimizer={"lr": 0.01})
    task = built(made)
    frugal = built(recipe(place, clips | {"cached": 5}, mirror=False, batch=12))
    ours, theirs = gradients(task), gradients(frugal)
    for name, wanted in ours.items():
        torch.testing.assert_close(theirs[name], wanted, rtol=1e-4, atol=1e-6)
    stage = build_stage(made, lambda text: None, offline=True)
    figures = train(made, stage, tmp_path)
    assert falls(tmp_path, "frame_order_loss", 0.5)
    assert figures["text_to_image_R@1"] > 0.7  # the mean of the frames could tell at most half
    parts = stage.task.parts  # type: ignore[attr-defined]
    parts.model.eval()
    paths = stage.task.validation[0].pictures  # type: ignore[attr-defined]
    media = Media(tuple(load_image(path) for path in paths), tuple(range(4)))
    with torch.no_grad():
        wanted = stage.task.images([View(paths)])[0]  # type: ignore[attr-defined]
    assert torch.tensor(Embedder.of(parts).embed_media([media])[0]) @ wanted > 0.999  # its states were bfloat16


def test_a_clips_frames_are_decoded_once(place: Path, tmp_path: Path) -> None:
    import shutil

    samples = Path(__file__).resolve().parents[2] / "data" / "samples"
    video = next(iter(sorted(samples.glob("*.mp4"))))
    shutil.copy(video, tmp_path / "a.mp4")
    lines = [{"video": "a.mp4", "captions": ["a red cat"], "split": split} for split in ("train", "val")]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = {"about": "one clip", "licence": "none", "source": "made by the test", "folder": "."}
    card = {"name": "clip", "annotations": "c.jsonl", "splits": {"train": 1, "val": 1}, **common}
    (tmp_path / "clip.yaml").write_text(yaml.safe_dump(card))
    clips = {"dataset": str(tmp_path / "clip.yaml"), "clips": {"frames": 3}}
    first, second = (built(recipe(place, clips, data=str(tmp_path), batch=1)) for _ in range(2))
    assert len(set(first.validation[0].pictures)) == 3
    assert first.validation[0].pictures == second.validation[0].pictures


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
