"""`/v1/sessions`: what was read of a conversation outlives the server, for the key that saved it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from chatting import CHAT, HELLO, Script, chatting, data_url, showing
from PIL import Image
from serving import CLIP, REPOSITORY, ServingProcess, as_shown, error

from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
from vlm.facade import Model
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.http.auth import Keys

SESSIONS = "/v1/sessions"
OURS, THEIRS, READS = "o" * 20, "t" * 20, "r" * 20
KEYS = Keys({OURS: "write", THEIRS: "write", READS: "read"})


@contextmanager
def serving(
    model: Model, folder: Path | None, keys: Keys | None = None, **limits: Any
) -> Iterator[tuple[httpx.Client, Engine]]:
    """A server that has just begun."""
    engine = Engine(model.model, model.processor, EngineSettings(chunk=16)).start()
    settings = ChatSettings(sessions=folder, media=(CLIP.parent,), limits=ChatLimits(**limits))
    with chatting(model, engine, settings, keys) as client:
        if keys is not None:
            client.headers["Authorization"] = f"Bearer {OURS}"
        yield client, engine
    engine.close()


def noise(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def talk(*turns: str) -> list[dict[str, Any]]:
    """About a picture and a clip."""
    first = showing(data_url(noise(1)), "What color is the wall?")
    first[0]["content"].insert(1, {"type": "video_url", "video_url": {"url": CLIP.name}})
    for text in turns:
        first += [{"role": "assistant", "content": "red"}, {"role": "user", "content": text}]
    return first


def said(client: httpx.Client, messages: Any) -> tuple[Any, int]:
    """The reply with its log-probabilities, and how much of the prompt was known."""
    body = {"messages": messages, "max_tokens": 8, "logprobs": True, "top_logprobs": 2}
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"], answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_a_server_that_begins_anew_reads_and_encodes_nothing_again(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path) as (client, engine):
        answer = client.post(f"{SESSIONS}/walls", json={"messages": talk()})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["name"], told["turns"], told["media"]) == ("walls", 1, 2)
        assert told["tokens"] > told["read_tokens"] > told["image_tokens"] > 0
        assert told["bytes"] == (tmp_path / "everyone" / "walls.safetensors").stat().st_size
        warm, cached = said(client, talk("And the dog?"))
        assert cached == told["read_tokens"]
        assert engine.pictures.encoded == told["image_tokens"]  # once
        assert client.get(SESSIONS).json() == {"object": "list", "data": [told]}
    with serving(tiny_model, tmp_path) as (client, engine):
        cold, nothing = said(client, talk("And the dog?"))
        assert nothing == 0
    with serving(tiny_model, tmp_path) as (client, engine):
        assert client.post(f"{SESSIONS}/walls/restore").json() == told
        assert said(client, talk("And the dog?")) == (warm, cached)
        assert engine.pictures.encoded == 0
        assert warm == cold


def test_the_conversation_comes_back_and_can_be_sent_again(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path) as (client, _):
        told = client.post(f"{SESSIONS}/walls", json={"messages": talk("And the dog?"), "max_frames": 2}).json()
        found = client.get(f"{SESSIONS}/walls").json()
        assert {key: found[key] for key in told} == told
        assert found["model"] == "tiny"
        assert [message["role"] for message in found["messages"]] == ["user", "assistant", "user"]
        shown, clip, text = found["messages"][0]["content"]
        assert (clip["video_url"]["url"], text["text"]) == (CLIP.name, "What color is the wall?")
        assert shown["image_url"]["url"].startswith("data:image/png;base64,")
        again = client.post(f"{SESSIONS}/again", json={"messages": found["messages"], "max_frames": 2}).json()
        assert {**again, "name": "walls", "saved": 0} == {**told, "saved": 0}
        kept = client.get(f"{SESSIONS}/again").json()["messages"]
        assert kept == found["messages"]
        picture = Image.open(io.BytesIO(base64.b64decode(shown["image_url"]["url"].partition(",")[2])))
        assert picture.mode == "RGB"
    with serving(tiny_model, tmp_path, json_bytes=100) as (client, _):  # what could not be sent again is not given
        assert client.get(f"{SESSIONS}/walls").json()["messages"][0]["content"][0]["image_url"] == {"url": ""}


def each(client: httpx.Client, name: str) -> list[httpx.Response]:
    """What needs a session to be there."""
    of = f"{SESSIONS}/{name}"
    return [client.delete(of), client.get(of), client.post(f"{of}/restore")]


def test_a_session_is_replaced_and_deleted(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path) as (client, _):
        first = client.post(f"{SESSIONS}/a", json={"messages": HELLO}).json()
        second = client.post(f"{SESSIONS}/a", json={"messages": talk()}).json()
        assert (first["media"], second["media"]) == (0, 2)
        assert client.get(SESSIONS).json()["data"] == [second]
        assert client.delete(f"{SESSIONS}/a").json() == {"name": "a"}
        assert {error(answer) for answer in each(client, "a")} == {(404, "session_not_found")}
        assert client.get(SESSIONS).json()["data"] == []


def test_another_key_sees_nothing_of_it(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path, KEYS) as (client, _):
        assert client.post(f"{SESSIONS}/a", json={"messages": talk()}).status_code == 200
        client.headers["Authorization"] = f"Bearer {THEIRS}"
        assert client.get(SESSIONS).json()["data"] == []
        assert {error(answer) for answer in each(client, "a")} == {(404, "session_not_found")}
        assert client.post(f"{SESSIONS}/a", json={"messages": HELLO}).json()["media"] == 0  # a name of their own
        assert said(client, talk())[1] == 0
        client.headers["Authorization"] = f"Bearer {READS}"
        assert client.get(SESSIONS).json()["data"] == []
        for answer in (client.post(f"{SESSIONS}/a", json={"messages": HELLO}), client.delete(f"{SESSIONS}/a")):
            assert error(answer) == (403, "forbidden")
        client.headers["Authorization"] = f"Bearer {OURS}"
        assert client.get(f"{SESSIONS}/a").json()["media"] == 2
    with serving(tiny_model, tmp_path, KEYS) as (client, engine):
        client.headers["Authorization"] = f"Bearer {OURS}"
        client.post(f"{SESSIONS}/a/restore")
        client.headers["Authorization"] = f"Bearer {THEIRS}"
        assert said(client, talk())[1] == 0
        assert engine.pictures.encoded > 0


@pytest.mark.parametrize(
    "name", ["a.b", "%2e%2e", "a%2Fb", "..%2f..%2fa", "a" * 65, "-a", "_", "a%20b", "%C3%A4", "a%5Cb", ".a", "a%00"]
)
def test_names_that_are_paths(tiny_model: Model, tmp_path: Path, name: str) -> None:
    with serving(tiny_model, tmp_path / "sessions") as (client, engine):
        for answer in (
            client.post(f"{SESSIONS}/{name}", json={"messages": HELLO}), client.get(f"{SESSIONS}/{name}"),
            client.delete(f"{SESSIONS}/{name}"), client.post(f"{SESSIONS}/{name}/restore"),
        ):  # fmt: skip
            assert error(answer)[0] in (404, 422), (name, answer.text)
        assert engine.prompts.nbytes == 0
        assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_server_without_a_folder_says_so(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, None) as (client, _), chatting(tiny_model, Script()) as other:
        for one in (client, other):
            for answer in (
                one.get(SESSIONS), one.post(f"{SESSIONS}/a", json={"messages": HELLO}), one.get(f"{SESSIONS}/a"),
                one.post(f"{SESSIONS}/a/restore"), one.delete(f"{SESSIONS}/a"),
            ):  # fmt: skip
                assert error(answer) == (404, "no_sessions")
                assert "--sessions" in answer.text


def test_bounds_of_number_and_bytes(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path, sessions=2) as (client, _):
        for name in ("a", "b", "a"):
            assert client.post(f"{SESSIONS}/{name}", json={"messages": HELLO}).status_code == 200
        assert error(client.post(f"{SESSIONS}/c", json={"messages": HELLO})) == (409, "too_many")
        size = sum(one["bytes"] for one in client.get(SESSIONS).json()["data"])
    with serving(tiny_model, tmp_path, sessions_bytes=size + 1000) as (client, _):
        assert error(client.post(f"{SESSIONS}/c", json={"messages": talk()})) == (507, "storage")
        assert len(client.get(SESSIONS).json()["data"]) == 2
    assert error_of_limits(tiny_model, tmp_path) == (413, "too_large")


def error_of_limits(model: Model, folder: Path) -> tuple[int, str]:
    with serving(model, folder, characters=3) as (client, _):
        return error(client.post(f"{SESSIONS}/a", json={"messages": HELLO}))


def test_a_full_disk_is_507_and_leaves_nothing_half_written(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm.engine.sessions import file

    def full(tensors: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with serving(tiny_model, tmp_path) as (client, _):
        told = client.post(f"{SESSIONS}/a", json={"messages": HELLO}).json()
        with monkeypatch.context() as patch:
            patch.setattr(file, "save_file", full)
            for name in ("a", "b"):
                answer = client.post(f"{SESSIONS}/{name}", json={"messages": talk()})
                assert error(answer) == (507, "storage")
                assert str(tmp_path) not in answer.text
        assert client.get(SESSIONS).json()["data"] == [told]
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.safetensors"]
        assert client.post(f"{SESSIONS}/a/restore").json() == told


def test_what_cannot_be_restored_is_said_and_listed(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path) as (client, _):
        for name in ("whole", "cut", "changed"):
            assert client.post(f"{SESSIONS}/{name}", json={"messages": talk()}).status_code == 200
    folder = tmp_path / "everyone"
    content = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-1])
    (folder / "changed.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / ".whole.safetensors.abc.safetensors").write_bytes(b"what a kill left")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # other kernels
    try:
        with serving(tiny_model, tmp_path) as (client, engine):
            assert len(list(folder.iterdir())) == 3
            listed = {one["name"]: one for one in client.get(SESSIONS).json()["data"]}
            assert "not a session" in listed["cut"]["error"]
            assert ("error" in listed["changed"], "error" in listed["whole"]) == (False, False)
            for name, line in (("cut", "not a session"), ("changed", "was damaged"), ("whole", "threads")):
                answer = client.post(f"{SESSIONS}/{name}/restore")
                assert error(answer) == (409, "unusable")
                assert line in answer.text
                assert str(tmp_path) not in answer.text
            assert engine.prompts.nbytes == engine.pictures.nbytes == 0
            assert client.get(f"{SESSIONS}/whole").json()["messages"][0]["content"][0]["type"] == "image_url"
            assert client.post(f"{SESSIONS}/whole", json={"messages": talk()}).status_code == 200
            assert client.post(f"{SESSIONS}/whole/restore").status_code == 200
    finally:
        torch.set_num_threads(before)


def test_what_is_no_conversation_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path) as (client, _):
        for body, expected in (
            ({}, (422, "invalid")), ({"messages": []}, (422, "invalid")),
            ({"messages": HELLO, "n": 2}, (422, "invalid")),
            ({"messages": HELLO, "model": "other"}, (404, "model_not_found")),
            ({"messages": [{"role": "user", "content": "word " * 400}]}, (400, "bad_input")),
            ({"messages": showing(data_url(b"no picture"))}, (400, "bad_input")),
        ):  # fmt: skip
            assert error(client.post(f"{SESSIONS}/a", json=body)) == expected
        assert client.get(SESSIONS).json()["data"] == []


@pytest.mark.process
def test_the_requests_shown_are_answered(tiny_model: Model, tmp_path: Path) -> None:
    with serving(tiny_model, tmp_path) as (client, _):
        assert as_shown(REPOSITORY / "docs" / "sessions.md", client) == 5
        assert client.get(SESSIONS).json()["data"] == []


@pytest.mark.process
def test_a_server_that_is_killed_has_what_it_saved(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    words = ["chat", "--model", str(tmp_path / "model"), "--sessions", str(tmp_path / "sessions"), "--offline"]
    words += ["--media", str(REPOSITORY / "data" / "samples"), "--max-sessions", "1", "--sessions-mb", "10"]
    server = ServingProcess(*words)
    told = server.client.post(f"{SESSIONS}/a", json={"messages": talk()}).json()
    assert error(server.client.post(f"{SESSIONS}/b", json={"messages": HELLO})) == (409, "too_many")
    expected, cached = said(server.client, talk("Sure?"))
    os.kill(server.process.pid, 9)
    server.process.wait()
    server = ServingProcess(*words)
    assert server.client.post(f"{SESSIONS}/a/restore").json() == told
    assert said(server.client, talk("Sure?")) == (expected, cached)
    assert server.end() == 0
