"""The language model's score of a text for a picture: the plain sum of log-probabilities, a token."""

from __future__ import annotations

import pytest
import tiny
import torch
from PIL import Image

from vlm.conversation.messages import question
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT
from vlm.errors import BadInput
from vlm.heads.matching import Matcher
from vlm.heads.writer import Writer
from vlm.media.open import Media
from vlm.models.assemble import assemble
from vlm.models.assembled import Assembled
from vlm.models.card import load_card

TEXTS = ["a red square on the wall", "Is there a dog in the picture ?"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    folder = tmp_path_factory.mktemp("matching")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        return assemble(load_card(str(tiny.write_card(folder / "model"))), offline=True)


def pictures() -> list[Media]:
    frames = [Image.effect_noise((70 + i, 64), 60).convert("RGB") for i in range(4)]
    return [Media((frames[0],)), Media((frames[1],)), Media(tuple(frames), (0.0, 1.0, 2.0, 3.0))]


@torch.inference_mode()
def plain(parts: Assembled, item: Media, sentence: str) -> float:
    """One sequence, one forward pass, no packing."""
    prompt = parts.processor.prompt(question(CLIP_PROMPT if item.is_clip else CAPTION_PROMPT, item.is_clip), [item])
    reply = parts.processor.reply(sentence)
    inputs = parts.processor.inputs(prompt)
    tokens_BT = torch.tensor([prompt.ids + reply])
    chances = parts.model(tokens_BT, inputs.pixels, inputs.grids)[0].log_softmax(dim=-1)
    return sum(float(chances[len(prompt.ids) + i - 1, token]) for i, token in enumerate(reply)) / len(reply)


def test_a_match_is_the_mean_log_probability_of_its_tokens(parts: Assembled) -> None:
    media, matcher = pictures(), Matcher(Writer(parts))
    asked = [TEXTS[0], TEXTS[1], TEXTS[0]]
    tidied = ["A red square on the wall.", "Is there a dog in the picture?.", "A red square on the wall."]
    found = matcher.match(media, asked)
    assert found == pytest.approx([plain(parts, m, t) for m, t in zip(media, tidied, strict=True)], abs=1e-4)
    assert all(score < 0 for score in found)
    assert matcher.match(media, asked, batch=1) == pytest.approx(found, abs=1e-4)


def test_texts_of_one_picture_are_scored_together_as_alone(parts: Assembled, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, clip = pictures()
    looked: list[int] = []
    monkeypatch.setattr("vlm.heads.matching.TOGETHER", 2)
    visual = Writer.visual
    monkeypatch.setattr(Writer, "visual", lambda self, item, layout: looked.append(1) or visual(self, item, layout))
    media, asked = [first, clip, first, first, clip], [*TEXTS, "a cat", TEXTS[1], TEXTS[0]]
    found = Matcher(Writer(parts)).match(media, asked)
    assert len(looked) == 3, "two sequences of the picture, one of the clip"
    assert found == pytest.approx(
        [Matcher(Writer(parts)).match([m], [t])[0] for m, t in zip(media, asked, strict=True)], abs=1e-4
    )


def test_a_models_own_caption_fits_better_than_others(parts: Assembled) -> None:
    media = pictures()[:1]
    own = Writer(parts).caption(media, max_tokens=8)[0]
    scores = Matcher(Writer(parts)).match(media * 3, [own, *TEXTS])
    assert scores[0] > max(scores[1:])


def test_counts_and_empty_texts_are_refused(parts: Assembled) -> None:
    with pytest.raises(BadInput, match="one text an input"):
        Matcher(Writer(parts)).match(pictures(), ["one"])
    with pytest.raises(BadInput, match="text 1 is empty"):
        Matcher(Writer(parts)).match(pictures()[:1], [" "])
