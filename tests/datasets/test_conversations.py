"""A file of conversations: what a line may say, and what is told of one that cannot be used."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from vlm.datasets import conversations
from vlm.datasets.conversations import ConversationFile
from vlm.errors import BadInput

ASKED = {"role": "user", "content": "What?"}
SAID = {"role": "assistant", "content": "A cat."}


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def test_both_shapes_of_a_picture(tmp_path: Path) -> None:
    png = base64.b64encode(b"PNG").decode()
    parts = [
        {"type": "image", "image": "a/cat.png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
        {"type": "video", "video": "/clips/b.mp4"},
        {"type": "text", "text": "What?"},
    ]
    file = ConversationFile(
        write(
            tmp_path / "x.jsonl",
            {"messages": [{"role": "user", "content": parts}, SAID], "id": "first", "meta": {"by": "me"}},
            "",
            {"messages": [{"role": "user", "content": "<image>What?"}, SAID], "images": ["../cat.png"]},
        )
    )
    assert (len(file), file.faulty) == (2, 0)
    first, second = file
    assert first.media == (str(tmp_path / "a/cat.png"), b"PNG", "/clips/b.mp4")
    assert [part.kind for part in first.messages[0].parts] == ["image", "image", "video", "text"]
    assert (first.id, first.where) == ("first", f"{tmp_path / 'x.jsonl'}:1")
    assert second.media == (str(tmp_path / "../cat.png"),)
    assert (second.id, second.where) == ("3", f"{tmp_path / 'x.jsonl'}:3")


def test_which_replies_are_learned(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, ASKED, {**SAID, "weight": 0}, ASKED, SAID, ASKED]
    (sample,) = ConversationFile(write(tmp_path / "x.jsonl", {"messages": turns}))
    assert sample.learned == (4,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        ({"messages": [ASKED, SAID], "image": "a.png"}, "unknown key 'image'; did you mean 'images'?"),
        ({}, "expected a list of messages"),
        ({"messages": "hello"}, "expected a list of messages, got str"),
        ({"messages": [{"role": "robot", "content": ""}]}, "message 1: expected role user, assistant or system"),
        ({"messages": [ASKED]}, "expected a message of the assistant to learn, got none"),
        ({"messages": [ASKED, {**SAID, "weight": 0}]}, "expected a message of the assistant to learn, got none"),
        ({"messages": [SAID, ASKED]}, "message 1 is the assistant's; expected one it replies to"),
        ({"messages": [ASKED, {**SAID, "weight": 2}]}, "message 2: expected weight 0 or 1, got 2"),
        ({"messages": [ASKED, {**SAID, "weight": True}]}, "message 2: expected weight 0 or 1, got True"),
        ({"messages": [{**ASKED, "content": "<image>?"}, SAID]}, "expected places for 0 pictures and clips, got 1"),
        (
            {"messages": [ASKED, {**SAID, "content": [{"type": "image", "image": "a.png"}]}]},
            "message 2: expected a reply of words alone, got pictures in it",
        ),
        ({"messages": [ASKED, SAID], "images": ["a.png"]}, "expected places for 1 pictures and clips, got 0"),
        ({"messages": [ASKED, SAID], "images": "a.png"}, "key images: expected a list of paths"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": 3}]}, SAID]},
            "expected a path of a picture or clip, got 3",
        ),
        (
            {"messages": [{"role": "user", "content": "<image>"}, SAID], "images": ["http://127.0.0.1/a.png"]},
            "expected a file, got the address http://127.0.0.1/a.png",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}, SAID]},
            "expected data:...;base64,",
        ),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_used(tmp_path: Path, line: Any, reason: str) -> None:
    file = ConversationFile(write(tmp_path / "x.jsonl", {"messages": [ASKED, SAID]}, line, {"messages": [ASKED, SAID]}))
    assert [sample.where[-2:] for sample in file] == [":1", ":3"]
    assert file.faulty == 1
    (fault,) = file.faults
    assert fault.line == 2
    assert reason in fault.reason
    assert "\n" not in fault.reason


def test_lines_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_LINE_BYTES", 200)
    long = {"messages": [ASKED, {**SAID, "content": "x" * 900}]}
    file = ConversationFile(write(tmp_path / "x.jsonl", {"messages": [ASKED, SAID]}, long, {"messages": [ASKED, SAID]}))
    assert [sample.id for sample in file] == ["1", "3"]
    assert [(fault.line, "200 bytes or more" in fault.reason) for fault in file.faults] == [(2, True)]


def test_all_faults_are_counted_and_some_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MOST_FAULTS", 3)
    file = ConversationFile(write(tmp_path / "x.jsonl", *["{"] * 7))
    assert (len(file), file.faulty, len(file.faults)) == (0, 7, 3)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none.jsonl: cannot be read: No such file"):
        ConversationFile(tmp_path / "none.jsonl")
