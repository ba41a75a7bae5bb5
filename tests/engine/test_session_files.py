"""Files that are no sessions, damaged ones, and ones that somebody made: each is one line, and changes nothing."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import running
import tiny
import torch
from safetensors.torch import save_file
from torch import Tensor

from vlm.api import load
from vlm.conversation.messages import read_messages
from vlm.engine.engine import Engine
from vlm.engine.request import Request
from vlm.engine.sessions import file
from vlm.engine.sessions.sessions import Sessions
from vlm.engine.settings import EngineSettings
from vlm.errors import BadInput

(PICTURE,) = running.pictures(1)
SAID = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What color?"}]}]
SETTINGS = EngineSettings(chunk=4)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    writer = load(str(tiny.write_card(tmp_path_factory.mktemp("tiny")))).writer
    assert writer is not None
    return Sessions(Engine(writer.model, writer.processor, SETTINGS), "tiny")


@pytest.fixture(scope="module")
def whole(sessions: Sessions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = read_messages(SAID)
    prompt = sessions.engine.processor.prompt(said.messages, said.media)
    running.ask(sessions.engine, [Request(prompt, max_tokens=1)])
    path = tmp_path_factory.mktemp("sessions") / "whole.safetensors"
    sessions.packed(said).write(path)
    assert sessions.about(path).read_tokens > 4
    return path


def refused(sessions: Sessions, path: Path) -> str:
    """The line; nothing of it is remembered."""
    fresh = Sessions(Engine(sessions.engine.model, sessions.engine.processor, SETTINGS), "tiny")
    with pytest.raises(BadInput) as caught:
        fresh.restore(fresh.opened(path))
    assert fresh.engine.prompts.nbytes == fresh.engine.pictures.nbytes == 0
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert len(line) < 1000
    return line


def test_what_is_no_session(sessions: Sessions, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        sessions.opened(path)
    for content, line in (
        (b"", "not a session"), (b"hello", "not a session"), (b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
        (struct.pack("<Q", 2**62) + b"{}", "not a session: expected a header of at most"),
        (struct.pack("<Q", 100) + b"{}", "not a session"), (struct.pack("<Q", 2) + b"[]", "not a session"),
        (struct.pack("<Q", 2) + b"{}", "expected format 'vlm session', got 'none'"),
    ):  # fmt: skip
        path.write_bytes(content)
        assert line in refused(sessions, path)
    save_file({"a": torch.zeros(3)}, path, metadata={"format": "pt"})
    assert "expected format 'vlm session', got 'pt'" in refused(sessions, path)
    save_file({"a": torch.zeros(3)}, path, metadata={"format": "vlm session", "version": "2"})
    assert "expected version '1', got '2'" in refused(sessions, path)
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in refused(sessions, path)
    path.unlink()
    path.mkdir()
    assert "no regular file" in refused(sessions, path)


def test_a_file_that_is_cut_or_changed(sessions: Sessions, whole: Path, tmp_path: Path) -> None:
    content, path = whole.read_bytes(), tmp_path / "a"
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for length in (7, 8, 100, header - 1, header, header + 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "not a session" in refused(sessions, path)
    path.write_bytes(content + b"x")
    assert "not a session" in refused(sessions, path)
    for place in (header, (header + len(content)) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "was damaged: expected sha256" in refused(sessions, path)
    path.write_bytes(content.replace(b'\\"turns\\":1', b'\\"turns\\":2'))
    assert "was damaged" in refused(sessions, path)


def test_a_file_that_is_too_large_takes_no_memory(sessions: Sessions, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as out:
        out.truncate(sessions.most + 1)  # nothing of it is on the disk
    assert f"expected a session of at most {sessions.most} bytes" in refused(sessions, path)


Change = Callable[[dict[str, Tensor], dict[str, str]], Any]


def put(name: str, value: Any) -> Change:
    return lambda tensors, about: tensors.update({name: value(tensors[name]) if callable(value) else value})


def drop(name: str) -> Change:
    return lambda tensors, about: tensors.pop(name)


def told(name: str, value: str) -> Change:
    return lambda tensors, about: about.update({name: value})


def said(**fields: Any) -> Change:
    """The conversation's JSON with these fields."""

    def change(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        old = json.loads(tensors["conversation"].numpy().tobytes())
        tensors["conversation"] = torch.frombuffer(bytearray(json.dumps({**old, **fields}).encode()), dtype=torch.uint8)

    return change


def message(*parts: Any, role: str = "user") -> Change:
    return said(messages=[{"role": role, "content": list(parts)}])


IMAGE, WORDS = {"type": "image", "media": 0}, {"type": "text", "text": "What color?"}
LAYER = "chunks.0.layers.0.0"
HOSTILE: dict[str, tuple[Change, str]] = {
    "no conversation": (drop("conversation"), "expected a tensor conversation of bytes, got none"),
    "of numbers": (put("conversation", torch.zeros(4)), "expected a tensor conversation of bytes"),
    "no JSON": (put("conversation", torch.full((9,), 91, dtype=torch.uint8)), "not JSON"),
    "deep JSON": (put("conversation", torch.full((10**6,), 91, dtype=torch.uint8)), "conversation: not JSON"),
    "a list": (put("conversation", torch.tensor([91, 93], dtype=torch.uint8)), "(top level)"),
    "no messages": (said(messages=[]), "key messages"),
    "an unknown key": (said(more=1), "key more"),
    "a role": (message(IMAGE, WORDS, role="tool"), "role"),
    "half a character": (message(IMAGE, {"type": "text", "text": "\ud800"}), "character"),
    "no such picture": (message({"type": "image", "media": 1}, WORDS), "by their numbers below 1"),
    "a picture without": (message({"type": "image"}, WORDS), "by their numbers below 1"),
    "not shown": (message(WORDS), "expected 1 pictures and clips to be shown, got 0"),
    "other words": (message(IMAGE, {"type": "text", "text": "Where was it?"}), "chunks of its conversation's tokens"),
    "other sizes": (said(media=[{"sizes": [[7, 9]]}]), "media.0.frames: expected uint8 [189]"),
    "huge sizes": (said(media=[{"sizes": [[10**9, 10**9]]}]), "media.0.frames: expected uint8 [3000"),
    "no sizes": (said(media=[{"sizes": []}]), "sizes"),
    "endless times": (said(media=[{"sizes": [[1, 1]], "times": [float("inf")]}]), "times"),
    "no frames": (drop("media.0.frames"), "media.0.frames: expected uint8"),
    "another tensor": (put("pictures", torch.zeros(1)), "expected a session's tensors, got 'pictures' too"),
    "a second picture": (put("media.1.visual", torch.zeros(1)), "got 'media.1.visual' too"),
    "fewer visual tokens": (put("media.0.visual", lambda one: one[1:].clone()), "media.0.visual: expected floats"),
    "whole visual tokens": (put("media.0.visual", lambda one: one.long()), "media.0.visual: expected floats"),
    "no number": (put("media.0.visual", lambda one: one * float("nan")), "got NaN"),
    "other tokens": (put("chunks.0.tokens", lambda one: one + 1), "chunks of its conversation's tokens"),
    "tokens in pieces": (put("chunks.0.tokens", lambda one: one.float()), "chunks.0.tokens: expected a row"),
    "more tokens": (put("chunks.0.tokens", lambda one: torch.cat([one, one])), "of another shape"),
    "no tokens": (put("chunks.0.tokens", torch.zeros(0, dtype=torch.int64)), "chunks.0.tokens: expected a row"),
    "a gap": (drop("chunks.0.tokens"), "expected 0 chunks one behind the other"),
    "no dropped": (drop("chunks.0.dropped"), "chunks.0.dropped: expected a row"),
    "layers dropped": (put("chunks.0.dropped", torch.zeros(1, dtype=torch.int64)), "expected 4 layers, got 1"),
    "dropped": (put("chunks.0.dropped", lambda one: one + 1), "expected 0 to 0 tokens dropped"),
    "dropped below": (put("chunks.0.dropped", lambda one: one - 2**40), "expected 0 to 0 tokens dropped"),
    "a layer less": (drop(LAYER), f"1 missing: {LAYER}"),
    "a layer more": (put("chunks.0.layers.9.0", torch.zeros(1)), "1 unknown: chunks.0.layers.9.0"),
    "another shape": (put(LAYER, lambda one: one[..., 1:].clone()), "of another shape"),
    "another type": (put(LAYER, lambda one: one.double()), "expected torch.float32, got torch.float64"),
    "NaN": (put(LAYER, lambda one: one * float("nan")), "got NaN"),
    "nothing about it": (told("about", "nothing"), "about: not JSON"),
    "less than nothing": (told("about", '{"turns": -1}'), "turns"),
    "no identity": (told("identity", "[]"), "identity: expected an object of texts"),
    "identity of numbers": (told("identity", '{"torch": 1}'), "identity: expected an object of texts"),
    "an empty identity": (told("identity", "{}"), "expected a session of model tiny, got one of configuration none"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_somebody_made(sessions: Sessions, whole: Path, name: str, tmp_path: Path) -> None:
    about, tensors = file.read(whole, sessions.most)
    change, line = HOSTILE[name]
    change(tensors, about)
    path = tmp_path / "a"
    file.write(path, tensors, about)
    assert line in refused(sessions, path)


def test_a_file_as_it_is_written_is_taken(sessions: Sessions, whole: Path, tmp_path: Path) -> None:
    about, tensors = file.read(whole, sessions.most)
    file.write(tmp_path / "a", tensors, about)
    assert (tmp_path / "a").stat().st_size == whole.stat().st_size
    sessions.restore(sessions.opened(tmp_path / "a"))


def test_a_disk_that_is_full_leaves_what_was_there(whole: Path, tmp_path: Path) -> None:
    """The limit on the size of files stands for it."""
    import resource
    import signal

    content = whole.read_bytes()
    path = tmp_path / "a"
    path.write_bytes(content)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(OSError, match="cannot be written"):
            file.write(path, {"a": torch.zeros(2**16)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
