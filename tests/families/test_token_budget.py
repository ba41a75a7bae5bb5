"""What a request costs, said before any weights are used: it is what the model then reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import random_llava_onevision as onevision
import random_smolvlm as smolvlm
import random_vl2 as vl2
import tiny
import torch
import yaml
from PIL import Image

import vlm
from vlm.conversation.budget import PictureTokens, TokenBudget
from vlm.errors import BadInput
from vlm.media.open import open_media
from vlm.media.video.sampling import Clip
from vlm.vision.merging import MergeConfig


def picture(width: int = 150, height: int = 100) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


CLIP = Clip([picture(60, 60) for _ in range(3)], [0.0, 1.0, 2.0], "a clip")


def test_the_line() -> None:
    tiled, frame = PictureTokens(1009, (3, 2), 41), PictureTokens(16)
    assert str(TokenBudget((tiled,), 23, 32, 4096)) == (
        "3x2 tiles and the whole, 1,009 tokens; prompt 23; reply up to 32; 1,064 of 4,096"
    )
    assert str(TokenBudget((frame,) * 4, 5, 1, 99)).startswith("4 x (16 tokens) = 64 tokens;")
    assert str(TokenBudget((tiled, frame, frame), 5, 1, 99)).startswith(
        "(3x2 tiles and the whole, 1,009 tokens) + 2 x (16 tokens) = 1,041 tokens; prompt 5"
    )
    assert str(TokenBudget((PictureTokens(32, frames=4),), 5, 1, 99)).startswith("4 frames, 32 tokens; ")
    assert str(TokenBudget((), 5, 1, 99)).startswith("no pictures; prompt 5")


def test_a_request_that_is_too_long() -> None:
    fits = TokenBudget((PictureTokens(60),), 30, 9, 99, "a.png")
    assert fits.check() is fits
    words = "a.png: 60 visual tokens, 31 of the prompt and a reply of up to 9 are 100 tokens; the language model reads"
    with pytest.raises(BadInput, match=f"{re.escape(words)} at most 99"):
        TokenBudget((PictureTokens(60),), 31, 9, 99, "a.png").check()


@pytest.fixture(scope="module", params=[vl2, smolvlm, onevision], ids=lambda family: family.__name__)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("published")
    request.param.write_folder(folder)
    return vlm.load(folder)


def without_weights(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*inputs: Any) -> None:
        raise AssertionError("the weights were used")

    for module in (model.tower, model.projector, model.language.embedding):
        monkeypatch.setattr(module, "forward", refuse)


def test_of_a_published_model(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [picture(), picture(40, 40), picture(200, 50)]
    messages = [{"role": "user", "content": "Is <image> like <image> and <image>?"}]
    inputs = published.processor(messages, pictures)
    seen = [len(tokens) for tokens in published.model.visual(inputs.pixels, inputs.grids)]
    without_weights(published.model, monkeypatch)
    budget = published.count(messages, pictures, max_tokens=7)
    assert [picture.tokens for picture in budget.pictures] == seen
    views = [published.model.arrangement.views(grid) for grid in inputs.grids.tolist()]
    assert [1 + wide * high for wide, high in (picture.tiles for picture in budget.pictures)] == views
    assert budget.total == inputs.input_ids.shape[1] + 7
    assert budget.context == published.model.language.cfg.context
    for media in (pictures[0], CLIP):
        (asked,) = published.budget([media], ["What is it?"])
        row = published.processor.question("What is it?", media)
        assert (asked.visual + asked.prompt, asked.reply) == (row.input_ids.shape[1], 32)
    (caption,) = published.budget([CLIP])
    assert (caption.reply, sum(picture.frames for picture in caption.pictures), caption.source) == (40, 3, "a clip")


def test_a_published_model_refuses_what_is_too_long_before_it_runs(
    published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_weights(published.model, monkeypatch)
    room = published.model.language.cfg.context
    with pytest.raises(BadInput, match=f"a clip: .* the language model reads at most {room}"):
        published.answer([CLIP], ["why " * room])


def test_pictures_alone_are_seen_in_tiles(published: Any) -> None:
    (budget,) = published.budget([picture(200, 70)])
    (seen,) = budget.pictures
    inputs = published.processor.question("Describe the picture.", picture(200, 70))
    assert 1 + seen.tiles[0] * seen.tiles[1] == len(inputs.pixels) > 2


def test_separators_are_counted(tmp_path: Path) -> None:
    vl2.write_folder(tmp_path)
    model = vlm.load(tmp_path)
    (budget,) = model.budget([picture(150, 150)])
    (seen,) = budget.pictures
    side = model.processor.fields.side
    assert (seen.tiles, seen.separators) == ((2, 2), side + 1 + 2 * side)
    assert seen.tokens == 5 * side**2 + seen.separators


@pytest.mark.parametrize("merge", [None, MergeConfig(spatial=0.5), MergeConfig(spatial=0.5, temporal=0.5)])
def test_of_a_card(merge: MergeConfig | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    model = vlm.load(tiny.write_card(tmp_path / "model"), merge=merge, offline=True)
    assert model.answer([CLIP, picture()], ["What?", "Is it red?"], max_tokens=3)
    assert dict(model.settings) == ({} if merge is None else {"merge": merge.model_dump_json()})
    without_weights(model.parts.model, monkeypatch)
    for media, question, frames in ((CLIP, "What?", 3), (picture(), "Is it red?", 1)):
        (budget,) = model.budget([media], [question])
        assert budget.visual == model.card.model.clip_tokens(frames)
        assert budget.visual + budget.prompt == len(model.writer.prompts([open_media(media)], [question])[0].ids)
    long = Clip(CLIP.frames * 90, [*map(float, range(270))], "a long clip")
    with pytest.raises(BadInput, match=r"a long clip: .* visual tokens, .* the language model reads at most 256"):
        model.caption([long])
    with pytest.raises(BadInput, match="expected one question an input, got 1 inputs and 2 questions"):
        model.budget([CLIP], ["a", "b"])


def test_merging_in_time_and_saying_times_do_not_go_together(tmp_path: Path) -> None:
    path = tiny.write_card(tmp_path / "model")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "video": {"times": True}}))
    with pytest.raises(BadInput, match="frames merged in time have no times of their own"):
        vlm.load(path, merge=MergeConfig(temporal=0.5), offline=True)
    vl2.write_folder(tmp_path / "vl2")
    with pytest.raises(BadInput, match="a published model's tokens are not merged"):
        vlm.load(tmp_path / "vl2", merge=MergeConfig(temporal=0.5))
