"""Hostile requests to a chat server: what retrieval refuses, this refuses too, and nothing of it reaches the engine."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chatting import CHAT, HELLO, Script, ask, chatting, data_url, showing
from hostile import PATHS, PICTURES, URLS, lay_traps, png_of, resolves
from serving import CLIP, error, picture, raw

from vlm.facade import Model
from vlm.server.chat.settings import ChatLimits, ChatSettings


@pytest.fixture(scope="module")
def engine() -> Script:
    return Script()


@pytest.fixture(scope="module")
def client(tiny_model: Model, engine: Script, media: Path) -> Iterator[httpx.Client]:
    limits = ChatLimits(
        body_bytes=4 * 2**20, json_bytes=4 * 2**20, image_bytes=2**20, video_bytes=2 * 2**20, header_seconds=1,
        silence_seconds=1, pixels=1_000_000,
    )  # fmt: skip
    with chatting(tiny_model, engine, ChatSettings(media=(media,), limits=limits)) as found:
        yield found


@pytest.fixture(autouse=True)
def unheard(engine: Script) -> Iterator[None]:
    """Nothing of it reaches the engine."""
    before = len(engine.asked)
    yield
    assert len(engine.asked) == before


@pytest.mark.parametrize(("content", "name"), PICTURES)
def test_what_is_no_picture_or_too_large_a_one(client: httpx.Client, content: bytes, name: str) -> None:
    clip = name.endswith(".mp4")
    message = showing(data_url(content), kind="video_url" if clip else "image_url") if content else None
    if message is not None:
        refused = ask(client, messages=message)
        assert error(refused) == (400, "bad_input")
        assert "/tmp/" not in refused.text
    for route, fields in (("/caption", {}), ("/vqa", {"question": "What?"})):
        refused = client.post(route, files={"file": (name, content)}, data=fields)
        assert error(refused) == (400, "bad_input")
        assert "/tmp/" not in refused.text


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,!!!!", "data:image/png;base64,A", "data:image/png,abc", "data:", "data:;base64,",
        "data:image/png;base64," + "=" * 100, "data:image/png;base64,\ufffd", "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zy8+", "DATA:image/png;base64,%%%", "data:image/png;base64,AA AA",
    ],
)  # fmt: skip
def test_data_urls_that_are_broken(client: httpx.Client, url: str) -> None:
    for kind in ("image_url", "video_url"):
        assert error(ask(client, messages=showing(url, kind=kind)))[0] == 400
    assert error(client.post("/caption", json={"image": url}))[0] == 400


def test_files_over_their_limits(client: httpx.Client) -> None:
    assert error(ask(client, messages=showing(data_url(bytes(2**20 + 1))))) == (413, "too_large")
    assert error(ask(client, messages=showing(data_url(bytes(2**21 + 1)), kind="video_url"))) == (413, "too_large")
    assert error(ask(client, messages=showing(data_url(bytes(2**22)))))[0] == 413
    assert error(client.post("/caption", files={"file": ("a.png", bytes(2**20 + 1))})) == (413, "too_large")
    assert error(client.post("/caption", files={"file": ("a.mp4", bytes(2**21 + 1))})) == (413, "too_large")


@pytest.mark.parametrize(("path", "status"), PATHS)
def test_paths_that_lead_elsewhere(client: httpx.Client, media: Path, path: str, status: int) -> None:
    lay_traps(media)
    for address in (path, f"file://{path}"):
        named = status if address != "file:///etc/passwd" else 403
        refused = ask(client, messages=showing(address))
        assert error(refused)[0] == named, refused.text
        assert str(media) not in refused.text


@pytest.fixture(scope="module")
def fetching(tiny_model: Model, engine: Script) -> Iterator[httpx.Client]:
    with chatting(tiny_model, engine, ChatSettings(urls=True, limits=ChatLimits(fetch_seconds=2))) as found:
        yield found


@pytest.mark.parametrize("url", URLS)
def test_urls_that_lead_inside(fetching: httpx.Client, url: str) -> None:
    """What is no URL is taken for a path, and this server has none."""
    for kind in ("image_url", "video_url"):
        refused = ask(fetching, messages=showing(url, kind=kind))
        assert error(refused)[1] in ("url_refused", "bad_input", "path_refused"), refused.text
    assert error(fetching.post("/caption", json={"image": url}))[0] in (400, 403)


def test_urls_without_leave_and_public_names_of_private_addresses(
    client: httpx.Client, fetching: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error(ask(client, messages=showing("https://example.com/a.png"))) == (403, "url_refused")
    resolves(monkeypatch, "10.1.2.3")
    refused = ask(fetching, messages=showing("http://public.example/a.png"))
    assert error(refused) == (400, "url_refused")
    assert "10.1.2.3" not in refused.text


def test_bodies_that_are_none(client: httpx.Client) -> None:
    json_type = {"Content-Type": "application/json"}
    deep = b'{"messages": ' + b"[" * 100_000
    for body, status in (
        (b"", 422), (b"{", 422), (b"[]", 422), (b"null", 422), (deep, 400), (b"\xff", 400), (b'{"messages": NaN}', 422),
        (b'{"messages": [' + b"{}," * 200_000 + b"{}]}", 413), (b'{"messages": "' + b"9" * 5_000_000 + b'"}', 413),
        (b'{"messages": [{"role": "user", "content": "a"}], "seed": ' + b"9" * 5000 + b"}", 400),
    ):  # fmt: skip
        for route in (CHAT, "/v1/responses", "/caption", "/vqa"):
            answer = client.post(route, content=body, headers=json_type)
            found = error(answer)[0]
            assert 400 <= found < 500, (route, body[:50], answer.text)
            assert route != CHAT or found == status, (body[:50], answer.text)


def test_numbers_that_json_does_not_know(client: httpx.Client) -> None:
    for name in ("temperature", "top_p", "min_p", "presence_penalty", "repetition_penalty", "fps"):
        for value in ("NaN", "Infinity", "-Infinity", "1e999"):
            body = json.dumps({"messages": HELLO})[:-1] + f', "{name}": {value}}}'
            answer = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
            assert error(answer) == (422, "invalid")


def test_schemas_that_are_none(client: httpx.Client) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed (pip: vlm[serve])")
    nested: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        nested = {"type": "array", "items": nested}
    for schema in ({"type": "nonsense"}, {"$ref": "#/none"}, {"$ref": "http://127.0.0.1/x"}, nested, {"pattern": "("}):
        named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        began = time.monotonic()
        answer = ask(client, response_format=named)
        assert answer.status_code < 500, answer.text
        assert time.monotonic() - began < 10


def test_forms_that_are_none(client: httpx.Client) -> None:
    file = {"file": ("a.png", picture())}
    for route, files, fields in (
        ("/caption", {}, {"a": "b"}), ("/caption", {"image": ("a.png", picture())}, {}), ("/vqa", file, {}),
        ("/caption", file, {"temperature": "1"}), ("/caption", file, {"max_tokens": "many"}),
        ("/caption", file, {"fps": "2"}), ("/vqa", file, {"question": "  "}),
    ):  # fmt: skip
        assert 400 <= error(client.post(route, files=files, data=fields))[0] < 500, (route, fields)
    two = [("file", ("a.png", picture())), ("file", ("b.png", picture()))]
    assert 400 <= error(client.post("/caption", files=two))[0] < 500
    assert error(client.post("/caption", content=b"x", headers={"Content-Type": "image/png"})) == (415, "unsupported")


def test_a_picture_that_is_not_decoded_for_a_request_that_is_refused(client: httpx.Client, engine: Script) -> None:
    """A wrong model, or too much of something, is told before a picture is looked at."""
    bomb = showing(data_url(png_of(50_000, 50_000)))
    assert error(ask(client, messages=bomb, model="other")) == (404, "model_not_found")
    assert error(ask(client, messages=bomb, n=17)) == (422, "invalid")


def test_a_slow_body_is_let_go(client: httpx.Client) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
    assert raw(client, head.encode()).startswith(b"HTTP/1.1 408 ")


def test_a_clip_that_is_cut_short_or_a_picture(client: httpx.Client) -> None:
    for content in (CLIP.read_bytes()[:20_000], picture(), b"\0" * 3000):
        encoded = base64.b64encode(content).decode()
        refused = ask(client, messages=showing(f"data:video/mp4;base64,{encoded}", kind="video_url"))
        assert error(refused) == (400, "bad_input")
        assert "/tmp/" not in refused.text
