"""`/caption` and `/vqa`: what `vlm caption` and `vlm ask` ask, by a form or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from chatting import Script, chatting, data_url
from serving import CLIP, error, picture

from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT
from vlm.facade import Model
from vlm.server.chat.settings import ChatSettings


@pytest.fixture(scope="module")
def engine() -> Script:
    return Script([" A", " cat. "])


@pytest.fixture(scope="module")
def client(tiny_model: Model, engine: Script, media: Path) -> Iterator[httpx.Client]:
    with chatting(tiny_model, engine, ChatSettings(media=(media,))) as found:
        yield found


def asked(model: Model, engine: Script, text: str) -> None:
    """The engine was asked the model's own way."""
    request = engine.asked[-1]
    (item,) = request.prompt.media
    processor = model.processor
    assert request.prompt.ids == processor.prompt(processor.user_messages(text, item), [item]).ids
    assert request.sampling.temperature == 0


def test_a_caption(client: httpx.Client, engine: Script, tiny_model: Model, media: Path) -> None:
    (media / "a.png").write_bytes(picture())
    for given in (
        {"files": {"file": ("a.png", picture())}}, {"json": {"image": data_url()}}, {"json": {"image": "a.png"}},
    ):  # fmt: skip
        answer = client.post("/caption", **given).json()
        assert (answer["caption"], answer["finish_reason"], answer["model"]) == ("A cat.", "stop", "tiny")
        assert answer["usage"]["media"][0]["size"] == [64, 64]  # every picture, by this tower
        asked(tiny_model, engine, CAPTION_PROMPT)
        assert engine.asked[-1].max_tokens == 40


def test_a_clip(client: httpx.Client, engine: Script, tiny_model: Model) -> None:
    """A form says by its file's name or type that it is one."""
    for given in (
        {"files": {"file": ("a.mp4", CLIP.read_bytes())}, "data": {"max_frames": "3"}},
        {"files": {"file": ("a", CLIP.read_bytes(), "video/mp4")}, "data": {"max_frames": "3"}},
        {"json": {"video": data_url(CLIP.read_bytes(), "video/mp4"), "max_frames": 3}},
    ):
        answer = client.post("/caption", **given).json()
        assert len(answer["usage"]["media"][0]["times"]) == 3
        asked(tiny_model, engine, CLIP_PROMPT)


def test_a_question(client: httpx.Client, engine: Script, tiny_model: Model) -> None:
    question = "What color is the square?"
    for given in (
        {"files": {"file": ("a.png", picture())}, "data": {"question": question, "max_tokens": "5"}},
        {"json": {"image": data_url(), "question": question, "max_tokens": 5}},
    ):
        answer = client.post("/vqa", **given).json()
        assert answer["answer"] == "A cat."
        asked(tiny_model, engine, question)
        assert engine.asked[-1].max_tokens == 5


def test_what_is_refused(client: httpx.Client) -> None:
    assert error(client.post("/caption", json={})) == (422, "invalid")
    assert error(client.post("/caption", json={"image": data_url(), "video": "x"})) == (422, "invalid")
    assert error(client.post("/caption", json={"image": data_url(), "fps": 1})) == (422, "invalid")
    assert error(client.post("/caption", json={"image": data_url(), "max_pixels": 1})) == (400, "bad_input")
    assert error(client.post("/caption", json={"image": data_url(), "model": "other"})) == (404, "model_not_found")
    assert error(client.post("/vqa", json={"image": data_url()})) == (422, "invalid")
    assert error(client.post("/vqa", json={"image": data_url(), "question": " "})) == (400, "bad_input")
    assert error(client.post("/vqa", files={"file": ("a.png", picture())})) == (422, "invalid")
