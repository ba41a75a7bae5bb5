"""The prompt around a picture or clip is made in one place: whoever asks, the language model reads the same ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import vlm
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT
from vlm.datasets.examples import Example
from vlm.facade import Model
from vlm.heads.matching import Matcher
from vlm.media.open import Media
from vlm.models.vision_language import VisionLanguageModel
from vlm.training.inputs import Shown, TrainingInputs

VARIANTS: dict[str, dict[str, Any]] = {
    "a card": {},
    "a card that says times": {"video": {"times": True}},
    "a card that merges": {"model": {"merge": {"spatial": 0.5, "temporal": 0.5}}},
    "a card of tiles": {"model": {"tiles": {"most": 4}}},
}
SEEN = {**dict.fromkeys(VARIANTS), **{kind: None for kind in ("SmolVLM", "LLaVA-OneVision", "DeepSeek-VL2")}}


@pytest.fixture(scope="module", params=SEEN)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("kind")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        if request.param not in VARIANTS:
            return kinds.load(request.param, folder / "model")
        path = Path(kinds.write("a card", folder / "model"))
        card = yaml.safe_load(path.read_text())
        changes = VARIANTS[request.param]
        card |= {key: {**card.get(key, {}), **value} for key, value in changes.items()}
        path.write_text(yaml.safe_dump(card))
        return vlm.load(path, offline=True)


def forget(model: Model) -> None:
    """What was read and seen before."""
    assert model.writer is not None
    model.writer.replies._engine = None


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of all that the model embeds."""
    seen: list[int] = []
    embed = VisionLanguageModel.embed

    def embedded(self: VisionLanguageModel, tokens_BT: Tensor, shown: Any = ()) -> Tensor:
        seen.extend(tokens_BT.flatten().tolist())
        return embed(self, tokens_BT, shown)

    monkeypatch.setattr(VisionLanguageModel, "embed", embedded)
    return seen


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


PICTURE = Media((noise(90, 60, 0),), source="a picture")
CLIP = Media(tuple(noise(64, 48, n) for n in range(3)), (0.0, 0.5, 1.5), "a clip", duration=2.0)


@pytest.mark.parametrize("item", [PICTURE, CLIP], ids=["picture", "clip"])
def test_all_read_the_same(model: Model, item: Media, read: list[int], tmp_path: Path) -> None:
    words = CLIP_PROMPT if item.is_clip else CAPTION_PROMPT
    forget(model)
    (caption,) = model.caption([item], max_tokens=3)
    prompt = list(read)
    reply = model.processor.reply("A dog.")

    read.clear()
    forget(model)
    model.answer([item], [words], max_tokens=1)
    assert read == prompt, "asking"

    read.clear()
    Matcher(model.writer).match([item], ["a dog"])  # type: ignore[arg-type]
    assert read[: len(prompt) + len(reply)] == prompt + reply, "matching"

    if model.model.language.routers():
        whole = prompt + model.processor.reply(model.caption([item])[0])
        model.expert_use([item])
        assert read[-len(whole) :] == whole, "experts"

    (budget,) = model.budget([item])
    assert budget.visual + budget.prompt == len(prompt), "counting"
    slots_BT = model.model.slots(torch.tensor([prompt]))
    assert budget.visual == int(slots_BT.sum()) or "DeepSeek" in model.about

    kind = "video" if item.is_clip else "image"
    (message,) = model.processor.user_messages(words, item)
    parts = [{"type": kind, kind: item}, {"type": "text", "text": message.text}]
    read.clear()
    forget(model)
    said = model.chat([{"role": "user", "content": parts}], max_tokens=3)
    assert read == prompt, "chat"
    assert said == caption

    inputs = TrainingInputs(model.parts, None)  # type: ignore[arg-type]
    assert inputs.prompt(item, words).ids == prompt, "training"


def test_what_is_learned_is_what_the_conversation_goes_on_with(model: Model) -> None:
    """The ids of a reply behind its prompt, less the token that ends it, are those of a conversation it stands in."""
    asked = [{"role": "user", "content": "<image>What is it?"}]
    prompt = model.processor.read(asked, [PICTURE]).ids
    whole = model.processor.read([*asked, {"role": "assistant", "content": "A dog."}], [PICTURE]).ids
    reply = model.processor.reply("A dog.")
    assert whole == prompt + reply[:-1]
    assert reply[-1] in model.processor.stop_tokens


def test_training_reads_a_files_prompt(model: Model, tmp_path: Path, read: list[int]) -> None:
    path = tmp_path / "picture.png"
    PICTURE.frames[0].save(path)
    forget(model)
    model.caption([path], max_tokens=1)
    inputs = TrainingInputs(model.parts, None)  # type: ignore[arg-type]
    example = Example(id="1", image=path, captions=("A dog.",))
    prompt = inputs.prompt(inputs.media(example), CAPTION_PROMPT)
    assert prompt.ids == read
    seen = inputs.visual([Shown(prompt, (example.pictures,))])
    assert sum(map(len, seen)) == int(model.model.slots(torch.tensor([prompt.ids])).sum())


def test_a_picture_is_preprocessed_and_seen_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four questions on one picture, asked two at a time, and its caption counted before."""
    forget(model)
    made: list[object] = []
    looked: list[int] = []
    processor, tower = type(model.processor), model.model.tower
    assert tower is not None
    pixels, forward = processor.pixels, tower.forward
    monkeypatch.setattr(processor, "pixels", lambda self, *rest: made.append(1) or pixels(self, *rest))
    monkeypatch.setattr(tower, "forward", lambda *rest: looked.append(1) or forward(*rest))
    model.budget([PICTURE])
    assert not made, "counting makes no pixels"
    model.answer([PICTURE] * 4, [f"What is number {n}?" for n in range(4)], max_tokens=2, batch=2)
    assert (len(made), len(looked)) == (1, 1)
    model.answer([PICTURE.frames[0].copy()] * 3, ["What?", "Why?", "Where?"], max_tokens=2)
    assert len(made) == 1, "the same pixels are the same picture, asked later too"
