"""Conversations to learn from: JSON lines in the shape of the chat API, pictures and clips by their paths.

A line is an object:

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "cat.jpg"}, {"type": "text", "text": "?"}]},
                  {"role": "assistant", "content": "A cat."}], "id": "cat-1"}

Roles are `system`, `user`, `assistant`; every reply of the assistant is learned, unless its message says
`"weight": 0`. A content is a text or a list of parts of type `text`, `image`, `video` (OpenAI's `image_url` and
`video_url` as well). With `"images": [PATH, ...]`, each `<image>` in a text stands for the next of them. Paths are
relative to the file. `id` and `meta`, an object, are kept as they are.

A file is looked through once; then a line is read where it lies, so that a file may be larger than memory.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.conversation.messages import Message, read_messages
from vlm.errors import BadInput, unknown
from vlm.media.urls import is_url

KEYS = ("messages", "images", "id", "meta")
MAX_LINE_BYTES = 64 * 2**20
MOST_FAULTS = 1000
"""That are kept; all are counted."""


@dataclass(frozen=True)
class Sample:
    """One conversation."""

    where: str
    """`FILE:LINE`."""
    id: str
    messages: tuple[Message, ...]
    media: tuple[str | bytes, ...]
    """Its pictures and clips in reading order: absolute paths, or the bytes of a `data:` address."""
    learned: tuple[int, ...]
    """Which messages are replies to learn."""

    def before(self, number: int) -> tuple[tuple[Message, ...], int]:
        """What is said before a message, and how many pictures and clips are shown there."""
        messages = self.messages[:number]
        return messages, sum(part.kind != "text" for message in messages for part in message.parts)


@dataclass(frozen=True)
class Fault:
    """A line that cannot be used, and why."""

    line: int
    reason: str


class ConversationFile:
    """The lines of a file that are conversations with something to learn; `faults` are the others.

    Whether pictures can be opened is not looked at. Raises `BadInput` where the file cannot be read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.faults: list[Fault] = []
        self.faulty = 0
        self._lines = array("q")
        self._starts = array("q")
        try:
            with self.path.open("rb") as file:
                self._look_through(file)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: int) -> Sample:
        with self.path.open("rb") as file:
            file.seek(self._starts[place])
            return self._sample(file.readline(MAX_LINE_BYTES), self._lines[place])

    def __iter__(self) -> Iterator[Sample]:
        return (self[place] for place in range(len(self)))

    def _look_through(self, file: Any) -> None:
        start, number = 0, 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            try:
                if len(line) == MAX_LINE_BYTES:
                    raise BadInput(f"{self.path}:{number}: a line of {MAX_LINE_BYTES} bytes or more; expected less")
                if line.strip():
                    self._sample(line, number)
                    self._lines.append(number)
                    self._starts.append(start)
            except BadInput as error:
                self.faulty += 1
                if len(self.faults) < MOST_FAULTS:
                    self.faults.append(Fault(number, str(error).removeprefix(f"{self.path}:{number}: ")))
                while not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                    start += len(line)
                    line = file.readline(MAX_LINE_BYTES)
            start += len(line)

    def _sample(self, line: bytes, number: int) -> Sample:
        where = f"{self.path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}: not JSON: {' '.join(str(error).split())[:200]}") from None
        if not isinstance(record, dict):
            raise BadInput(f"{where}: expected a JSON object, got {type(record).__name__}")
        for key in record:
            if key not in KEYS:
                raise BadInput(f"{where}: {unknown('key', key, KEYS)}")
        images = record.get("images", [])
        if not isinstance(images, list) or not all(isinstance(path, str) for path in images):
            raise BadInput(f"{where}: key images: expected a list of paths, got {json.dumps(images)[:80]}")
        try:
            said = read_messages(record.get("messages", ()), images)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        learned = tuple(_learned(record["messages"], where))
        if not learned:
            raise BadInput(f"{where}: expected a message of the assistant to learn, got none")
        if learned[0] == 0:
            raise BadInput(f"{where}: message 1 is the assistant's; expected one it replies to")
        if odd := [number for number in learned if any(part.kind != "text" for part in said.messages[number].parts)]:
            raise BadInput(f"{where}: message {odd[0] + 1}: expected a reply of words alone, got pictures in it")
        media = tuple(self._place(source, where) for source in said.media)
        return Sample(where, str(record.get("id", number)), said.messages, media, learned)

    def _place(self, source: Any, where: str) -> str | bytes:
        if isinstance(source, bytes):
            return source
        if not isinstance(source, str) or not source or "\0" in source:
            raise BadInput(f"{where}: expected a path of a picture or clip, got {source!r:.80}")
        if is_url(source):
            raise BadInput(f"{where}: expected a file, got the address {source[:80]}; fetch it first")
        return str(self.path.parent / Path(source).expanduser())


def _learned(messages: list[Mapping[str, Any]], where: str) -> Iterator[int]:
    for number, message in enumerate(messages):
        weight = message.get("weight", 1)
        if weight not in (0, 1) or isinstance(weight, bool):
            raise BadInput(f"{where}: message {number + 1}: expected weight 0 or 1, got {weight!r:.40}")
        if message["role"] == "assistant" and weight:
            yield number
