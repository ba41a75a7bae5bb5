"""Which frames of a clip a model is shown, and whether its prompt says when they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from PIL import Image

from vlm.api import Model, load
from vlm.assets import root
from vlm.conversation.messages import question
from vlm.conversation.packing import IMAGE_SLOT
from vlm.conversation.template import Line, Template, stamp
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.heads.writer import Writer
from vlm.media.open import Media, open_media
from vlm.media.video.sampling import Adaptive, Keyframes, Rate, Uniform
from vlm.models.card import load_card
from vlm.models.processor import Prompt

CLIP = root() / "data" / "samples" / "temple_and_flower.mp4"
SQUARE = Image.new("RGB", (64, 64), "red")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_card(tmp_path_factory.mktemp("tiny"))


def with_video(card: Path, **video: Any) -> str:
    data = yaml.safe_load(card.read_text())
    changed = card.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump({**data, "video": video}))
    return str(changed)


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What the language model was asked; it answers nothing."""
    seen: list[list[int]] = []

    def write(self: Writer, conversations: Sequence[Prompt], **settings: Any) -> list[str]:
        seen.extend(prompt.ids for prompt in conversations)
        return [""] * len(conversations)

    monkeypatch.setattr(Writer, "write", write)
    return seen


def said(model: Model, prompt: list[int]) -> str:
    ids = [token for token in prompt if token != IMAGE_SLOT]
    return str(model.parts.tokenizer.decode(ids))


def test_a_time_stands_before_its_frame(tokenizer: TextTokenizer) -> None:
    template = Template(tokenizer)
    asked = question("What?", clip=True)
    plain, timed = (template.ids(asked, [[Line(4, time) for time in times]]) for times in ([None] * 2, [0.5, 12.04]))
    slots = [IMAGE_SLOT] * 4 + tokenizer.encode("\n")
    start = plain[: plain.index(IMAGE_SLOT)]
    assert plain[: len(start) + 2 * len(slots)] == start + slots * 2
    said = start + tokenizer.encode("<0.5s>") + slots + tokenizer.encode("<12.0s>") + slots
    assert timed == said + plain[len(start) + 2 * len(slots) :]
    assert stamp(0.04) == "<0.0s>"


def test_nano_says_no_times_and_sees_four_frames() -> None:
    card = load_card("nano")
    assert card.video.times is False
    assert card.video.sampling == Uniform(frames=4)


def test_times_are_said_where_the_card_says_so(card: Path, prompts: list[list[int]]) -> None:
    silent, telling = load(str(card)), load(with_video(card, times=True))
    media = open_media(CLIP)
    for model in (silent, telling):
        model.answer([media, SQUARE], ["What is shown first?", "What color?"])
    plain, picture, timed, same_picture = prompts
    stamps = [f"<{time:.1f}s>" for time in media.times]
    assert len(set(stamps)) == 4
    text = said(telling, timed)
    assert [text.index(each) for each in stamps] == sorted(text.index(each) for each in stamps)
    assert "s>" not in said(silent, plain)
    assert picture == same_picture
    assert plain.count(IMAGE_SLOT) == timed.count(IMAGE_SLOT) == 4 * tiny.MODEL.visual_tokens


def test_frames_that_come_as_pictures_have_no_seconds_to_say(card: Path, prompts: list[list[int]]) -> None:
    model = load(with_video(card, times=True))
    model.answer([Media((SQUARE, SQUARE), (0.0, 1.0), timed=False)], ["What color?"])
    assert "s>" not in said(model, prompts[0])


def test_the_card_and_then_the_call_say_which_frames(card: Path, prompts: list[list[int]]) -> None:
    model = load(with_video(card, sampling={"kind": "rate", "fps": 2.0}))
    assert model.sampling() == Rate(fps=2.0)
    model.answer([CLIP], ["What?"])  # 4 s
    model.answer([CLIP], ["What?"], sampling=Uniform(frames=3))
    model.caption([CLIP], sampling=Keyframes(frames=1))
    slots = tiny.MODEL.visual_tokens
    assert [prompt.count(IMAGE_SLOT) // slots for prompt in prompts] == [8, 3, 1]
    vectors = model.embed_videos([CLIP], sampling=Uniform(frames=1))
    assert vectors.shape == (1, 16)


def test_a_budget_of_tokens_is_the_model_s_own_tokens(card: Path, prompts: list[list[int]]) -> None:
    slots = tiny.MODEL.visual_tokens
    model = load(with_video(card, sampling={"kind": "adaptive", "tokens": 5 * slots + 1}))
    model.answer([CLIP], ["What?"])
    assert prompts[0].count(IMAGE_SLOT) == 5 * slots
    assert model.sampling(Adaptive(tokens=2 * slots)) == Adaptive(tokens=2 * slots, tokens_per_frame=slots)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"sampling": {"kind": "unform"}}, "sampling"),
        ({"sampling": {"kind": "uniform", "frames": 0}}, "greater than 0"),
        ({"sampling": {"kind": "adaptive", "tokens": 99, "tokens_per_frame": 7}}, "the model has 4"),
        ({"time": True}, "time"),
    ],
)
def test_a_card_that_cannot_be_is_one_line(card: Path, video: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_card(with_video(card, **video))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_moments_are_looked_for_within_a_budget_of_tokens_too(card: Path) -> None:
    ((best, *_),) = load(str(card)).moments(CLIP, ["a temple"], sampling=Adaptive(tokens=6 * tiny.MODEL.visual_tokens))
    assert 0 <= best.start < best.end <= 4
