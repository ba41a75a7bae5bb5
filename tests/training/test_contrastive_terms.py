"""What a contrastive recipe adds to its loss: a teacher, written captions, the order of frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from contrastive_recipes import built, curve, falls, gradients, recipe, write_place
from safetensors.torch import load_file

from vlm.conversation.template import CAPTION_PROMPT, tidy
from vlm.heads.retrieval import Embedder
from vlm.media.images import load_image
from vlm.media.open import Media, open_media
from vlm.training.loop import train
from vlm.training.objectives.contrastive.batches import View
from vlm.training.stages import build_stage


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("contrastive"))


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(place / "cache"))


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
        prompt = processor.prompt(processor.user_messages(CAPTION_PROMPT, picture), [picture]).ids
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
