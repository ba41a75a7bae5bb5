"""Readers that go away, are slow, or are too many, and a server that ends: what each costs, and who is told."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from chatting import CHAT, EMBED, HELLO, Script, ask, chatting, data_url, embedder, loaded, showing
from serving import error, picture, running, wait

from vlm.engine.request import Piece, Request
from vlm.facade import Model
from vlm.server.chat.app import create_app
from vlm.server.chat.replies import Reply
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.http.errors import ApiError
from vlm.server.http.serving import Server, configured

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))  # small models of every kind
import kinds


def opened(client: httpx.Client, **fields: object) -> socket.socket:
    """A connection over which a reply was asked for."""
    body = json.dumps({"messages": HELLO, **fields}).encode()
    sock = socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    sock.sendall(f"{head}\r\n\r\n".encode() + body)
    return sock


@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_that_is_dropped_frees_its_request(tiny_model: Model, stream: bool) -> None:
    engine = Script(endless=True)
    with chatting(tiny_model, engine) as client:
        sock = opened(client, stream=stream)
        if stream:
            assert sock.recv(20).startswith(b"HTTP/1.1 200")
        wait(lambda: engine.said > 3)
        assert not engine.cancelled
        sock.close()
        wait(lambda: engine.cancelled, 5)
        said = engine.said
        time.sleep(0.1)
        assert engine.said <= said + 1
        wait(lambda: b"vlm_replies_running 0.0" in client.get("/metrics").content, 5)
        assert b'vlm_requests_total{method="POST"' in client.get("/metrics").content


def test_one_that_is_dropped_before_its_first_word(tiny_model: Model) -> None:
    engine = Script()
    engine.go.clear()
    with chatting(tiny_model, engine) as client:
        for stream in (True, False):
            sock = opened(client, stream=stream)
            wait(lambda: len(engine.asked) > len(engine.cancelled), 5)
            sock.close()
            wait(lambda: len(engine.asked) == len(engine.cancelled), 5)


def test_a_slow_reader_loses_its_reply_and_holds_up_nobody(tiny_model: Model) -> None:
    """Kernels buffer some megabytes on their own; what the server itself holds is bounded."""
    engine = Script(["x" * 4000], endless=True)
    limits = ChatLimits(pieces=50, silence_seconds=2, header_seconds=1)
    with chatting(tiny_model, engine, ChatSettings(limits=limits)) as client:
        slow = opened(client, stream=True)
        wait(lambda: engine.cancelled, 30)
        asked = len(engine.asked)
        engine.endless = False
        assert ask(client).status_code == 200
        assert len(engine.asked) == asked + 1
        slow.settimeout(10)
        got = b""
        try:
            while chunk := slow.recv(2**20):
                got += chunk
        except ConnectionError:
            pass
        assert b"[DONE]" not in got  # nobody takes it for a whole one
        slow.close()


def test_a_reader_that_takes_nothing_at_all_is_left_off(tiny_model: Model) -> None:
    engine = Script(["x" * 4000], endless=True)
    limits = ChatLimits(pieces=2**30, silence_seconds=0.5)
    with chatting(tiny_model, engine, ChatSettings(limits=limits)) as client:
        stuck = opened(client, stream=True)
        wait(lambda: engine.cancelled, 30)
        wait(lambda: b"vlm_replies_running 0.0" in client.get("/metrics").content, 5)
        stuck.close()


def test_the_buffer_is_bounded_and_says_so() -> None:
    class Fast:
        def submit(self, request: Request, heard: object) -> Fast:
            threading.Thread(target=lambda: [heard(Piece(0, "x")) for _ in range(100)]).start()  # type: ignore[operator]
            return self

        def cancel(self) -> None:
            self.cancelled = True

    async def read() -> None:
        engine, reply = Fast(), Reply(1, most=10)
        await reply.ask(engine, Request(None))  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        assert engine.cancelled
        with pytest.raises(ApiError, match="fell behind by more than 10 pieces"):
            await anext(reply.pieces())

    asyncio.run(read())


@pytest.mark.parametrize("turns", range(8))
def test_a_reader_that_is_cancelled_as_a_piece_comes_ends(turns: int) -> None:
    """Whichever turn of the event loop both come in."""

    async def read() -> None:
        reply = Reply()

        async def pieces() -> None:
            async for _ in reply.pieces(60):
                pass

        reading = asyncio.ensure_future(pieces())
        await asyncio.sleep(0.01)
        reply._heard(Piece(0, "a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading], timeout=10)
        assert reading.cancelled()

    asyncio.run(read())


def test_silence_is_told_while_a_reply_waits(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.server.chat.completions.SILENCE_SECONDS", 0.05)
    engine = Script()
    engine.go.clear()
    body = {"messages": HELLO, "stream": True}
    with chatting(tiny_model, engine) as client, client.stream("POST", CHAT, json=body) as answer:
        lines = answer.iter_lines()
        assert any(line.startswith(":") for line in lines)
        engine.go.set()
        assert "data: [DONE]" in list(lines)


def test_more_requests_than_at_the_same_time_are_told_to_come_again(tiny_model: Model) -> None:
    engine = Script()
    engine.go.clear()
    settings = ChatSettings(limits=ChatLimits(requests=2))
    with chatting(tiny_model, engine, settings) as client, ThreadPoolExecutor(2) as threads:
        running = [threads.submit(ask, client) for _ in range(2)]
        wait(lambda: len(engine.asked) == 2)
        refused = ask(client)
        assert error(refused) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        engine.go.set()
        assert [one.result().status_code for one in running] == [200, 200]


def test_pictures_take_room_until_their_reply_is_whole(tiny_model: Model, tmp_path: Path) -> None:
    """The second waits for the first one's room, and is told to come again where that takes too long. A model that
    makes every picture as small at first holds no whole one."""
    engine, tiles = Script(), kinds.load("SmolVLM", tmp_path / "model")
    engine.go.clear()
    content = showing(data_url(picture("red", (1000, 1000))))
    limits = ChatLimits(decoded_bytes=20_000_000, media_seconds=0.3)
    with chatting(tiles, engine, ChatSettings(limits=limits)) as client:
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(ask, client, messages=content)
            wait(lambda: engine.asked)
            assert error(ask(client, messages=content)) == (429, "busy")
            engine.go.set()
            assert first.result().status_code == 200
        assert ask(client, messages=content).status_code == 200
        two = showing(data_url(picture("blue", (1000, 1000)))) + content
        assert error(ask(client, messages=two)) == (413, "too_large")  # never, whoever else is there
    engine.go.clear()
    patient = ChatSettings(limits=ChatLimits(decoded_bytes=20_000_000))
    with chatting(tiny_model, engine, patient) as client, ThreadPoolExecutor(3) as threads:
        asked = len(engine.asked)
        all_of_them = [threads.submit(ask, client, messages=two) for _ in range(3)]
        wait(lambda: len(engine.asked) == asked + 3)
        engine.go.set()
        assert [one.result().status_code for one in all_of_them] == [200] * 3


def test_pictures_of_replies_and_of_vectors_share_one_room(tiny_model: Model, tmp_path: Path) -> None:
    engine, tiles = Script(), kinds.load("SmolVLM", tmp_path / "model")
    engine.go.clear()
    served = replace(loaded(tiles, engine), embedders=(embedder(tiny_model),))
    settings = ChatSettings(limits=ChatLimits(decoded_bytes=20_000_000))
    vector = {"input": [{"image": base64.b64encode(picture("red", (1100, 1100))).decode()}]}  # takes nearly all of it
    app = lambda failed: create_app(settings, lambda: served, None, failed)  # noqa: E731
    with running(app, settings.limits) as client, ThreadPoolExecutor(1) as threads:
        assert client.post(EMBED, json=vector).status_code == 200
        reply = threads.submit(ask, client, messages=showing(data_url(picture("red", (1000, 1000)))))
        wait(lambda: engine.asked)
        with pytest.raises(httpx.ReadTimeout):
            client.post(EMBED, json=vector, timeout=1)
        engine.go.set()
        assert reply.result().status_code == 200
        assert client.post(EMBED, json=vector).status_code == 200


def test_a_server_that_ends_finishes_what_it_accepted(tiny_model: Model) -> None:
    engine, closed = Script(), threading.Event()
    engine.go.clear()
    settings, served = ChatSettings(), loaded(tiny_model, engine)
    served = type(served)(**{**vars(served), "close": closed.set})
    server = Server(configured(create_app(settings, lambda: served), settings.limits, "127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait(lambda: server.address)
    with httpx.Client(base_url=server.address, timeout=30) as client, ThreadPoolExecutor(2) as threads:
        wait(lambda: client.get("/readyz").status_code == 200)
        replies = [threads.submit(ask, client, stream=stream) for stream in (True, False)]
        wait(lambda: len(engine.asked) == 2)
        server.should_exit = True
        time.sleep(0.3)
        assert not closed.is_set()
        engine.go.set()
        assert "[DONE]" in replies[0].result().text
        assert replies[1].result().json()["choices"][0]["message"]["content"] == "A red square."
    thread.join(20)
    assert closed.is_set()
    assert not engine.cancelled


def test_a_reply_that_never_ends_holds_up_the_end_for_so_long_alone(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.server.http.serving.GRACE_SECONDS", 1)
    engine = Script(endless=True)
    with chatting(tiny_model, engine) as client:
        sock = opened(client, stream=True)
        wait(lambda: engine.said > 3)
    assert engine.cancelled
    sock.close()


def test_nothing_of_uploads_is_left(tiny_model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    from serving import CLIP

    clip = data_url(CLIP.read_bytes(), "video/mp4")
    with chatting(tiny_model, Script()) as client:
        assert ask(client, messages=showing(clip, kind="video_url"), max_frames=2).status_code == 200
        both = showing(clip, kind="video_url") + showing(data_url(b"none"))
        assert error(ask(client, messages=both, max_frames=2)) == (400, "bad_input")
        assert client.post("/caption", files={"file": ("a.mp4", CLIP.read_bytes())}).status_code == 200
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []
