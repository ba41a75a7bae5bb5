"""A conversation of the page is the request that the API would be sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from chatting import Script, loaded
from pydantic import ValidationError
from serving import CLIP, picture

from vlm.facade import Model
from vlm.server.chat.completion_schemas import ChatRequest
from vlm.server.chat.completions import wanted
from vlm.server.chat.metrics import ChatMetrics
from vlm.server.chat.service import ChatService
from vlm.server.chat.settings import ChatSettings
from vlm.server.chat.turns import Talk, Turn, asked, drawn, size
from vlm.server.embedding.service import Embedding
from vlm.server.http.errors import ApiError

T = TypeVar("T")


def served(model: Model, work: Callable[[ChatService], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        asked, metrics, behind = ChatSettings(**settings), ChatMetrics(), loaded(model, Script())
        vectors = Embedding(asked, behind.embedders, metrics)
        service = ChatService(asked, behind, vectors, metrics)
        try:
            return await work(service)
        finally:
            await service.close()
            await vectors.close()

    return asyncio.run(run())


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    red, clip = tmp_path / "red.png", tmp_path / "city.mp4"
    red.write_bytes(picture())
    clip.write_bytes(CLIP.read_bytes())
    return Talk([Turn("What is it?", [red, clip], "A <b>square</b>.", done=True), Turn("Why?", [red])])


def test_it_is_what_the_api_would_be_sent(tiny_model: Model, talk: Talk, tmp_path: Path) -> None:
    red, clip = (
        {"type": kind, kind: {"url": name}} for kind, name in (("image_url", "red.png"), ("video_url", "city.mp4"))
    )
    body = {"max_tokens": 3, "temperature": 0, "messages": [
        {"role": "user", "content": [red, clip, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A <b>square</b>."},
        {"role": "user", "content": [red, {"type": "text", "text": "Why?"}]},
    ]}  # fmt: skip

    async def both(service: ChatService) -> None:
        page = await asked(service, talk, tmp_path, "me", max_tokens=3, temperature=0)
        api = wanted(service, ChatRequest.model_validate(body))
        assert (page.messages, page.sampling, page.max_tokens) == (api.messages, api.sampling, api.max_tokens)
        assert page.client == "me"
        async with service.opening.opened(page.media) as own, service.opening.opened(api.media) as others:
            assert [(one.source, one.times) for one in own] == [(one.source, one.times) for one in others]
            frames = [[frame.tobytes() for one in media for frame in one.frames] for media in (own, others)]
            assert frames[0] == frames[1]
        undecided = await asked(service, talk, tmp_path, "", decides=True)
        assert undecided.messages[-1] == {"role": "user", "content": [{"type": "image", "number": 2}]}

    served(tiny_model, both, media=(tmp_path,))


def test_what_is_asked_wrongly_is_refused(tiny_model: Model, talk: Talk, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()

    async def refuse(service: ChatService) -> None:
        with pytest.raises(ValidationError):
            await asked(service, talk, tmp_path, "", max_tokens=-1)
        with pytest.raises(ApiError, match=r"red\.png: expected a path below"):
            await asked(service, talk, outside, "")

    served(tiny_model, refuse)


def test_files_are_counted_together(talk: Talk, tmp_path: Path) -> None:
    total = 2 * (tmp_path / "red.png").stat().st_size + CLIP.stat().st_size
    assert size(talk.files, total) == total
    with pytest.raises(ApiError, match=f"of at most {total - 1} bytes in a conversation, got {total}"):
        size(talk.files, total - 1)
    (tmp_path / "red.png").unlink()
    with pytest.raises(ApiError, match=r"red\.png: is not kept any more"):
        size(talk.files, total)


def test_nothing_is_drawn_as_markup(talk: Talk) -> None:
    drawings = drawn(talk.turns)
    assert [one["role"] for one in drawings] == ["user", "assistant", "user"]
    assert drawings[1]["content"] == [{"type": "text", "text": "A &lt;b&gt;square&lt;/b&gt;."}]
    assert [part.get("path", "").rpartition("/")[2] for part in drawings[0]["content"]] == ["red.png", "city.mp4", ""]
