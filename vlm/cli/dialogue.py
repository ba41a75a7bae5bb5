"""A conversation of several turns: what was said so far, lines of the user, and replies as they are written."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm.cli.output import say
from vlm.errors import BadInput, VlmError

if TYPE_CHECKING:
    from vlm.api import Model
    from vlm.media.open import Media

NEARLY_FULL = 0.8
"""Of what the model reads: from there on each turn says how much is taken."""
HELP = """\
/image PATH   show a picture, clip or URL with the next question; <image> in it says where
/clear        begin anew, without pictures and turns
/help         these lines
/exit         end (so does Ctrl-D); Ctrl-C stops the reply alone"""
COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?$")


def parts_of(text: str, media: Sequence[Media]) -> list[dict[str, Any]]:
    """A user's words with pictures and clips in the places of `<image>`; those that have none stand before the text.

    Raises `BadInput` for more places than pictures.
    """
    pieces = text.split("<image>")
    first = len(media) - len(pieces) + 1
    if first < 0:
        raise BadInput(f"text: expected at most {len(media)} <image> for as many pictures, got {len(pieces) - 1}")
    shown = [{"type": kind, kind: item} for item in media for kind in ["video" if item.is_clip else "image"]]
    parts: list[dict[str, Any]] = [*shown[:first], {"type": "text", "text": pieces[0]}]
    for item, piece in zip(shown[first:], pieces[1:], strict=True):
        parts += [item, {"type": "text", "text": piece}]
    return [part for part in parts if part.get("text", "x")]


class Dialogue:
    """What is said to a model, and what it says. `options` are those of `Model.chat`.

    With a `session`, a file, it goes on with the conversation in it, where there is one, and `keep` writes it. Raises
    `BadInput` for a file of another model, and for another system turn than the file's.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        open_one: Callable[[str], Media],
        media: Sequence[Media],
        system: str | None,
        session: Path | None = None,
        **options: Any,
    ):
        self._load, self._open, self._options = load, open_one, options
        self._first: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._shown = list(media)
        """With the next question."""
        self.messages = list(self._first)
        self._session = session
        if session is not None and session.exists():
            self._go_on_with(session, system)
        self._kept = self.messages

    def _go_on_with(self, session: Path, system: str | None) -> None:
        self.messages = self._load().sessions.restore(session, say=say)
        first = [message for message in self.messages[:1] if message["role"] == "system"]
        if system is not None and system != "".join(part["text"] for message in first for part in message["content"]):
            raise BadInput(f"--system: expected that of the conversation in {session}, or none, got {system!r}")
        self._first = first
        turns = sum(message["role"] == "user" for message in self.messages)
        media = sum(part["type"] != "text" for message in self.messages for part in message["content"])
        say(f"{session}: goes on after {turns} turns about {media} pictures and clips")

    def keep(self) -> None:
        """Write what was said since it was written last. Raises `VlmError` where it cannot be."""
        if self._session is None or self._kept is self.messages or len(self.messages) == len(self._first):
            return
        try:
            self._load().sessions.save(self._session, self.messages)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise VlmError(f"{self._session}: expected a file that can be written, got: {reason}") from None
        self._kept = self.messages

    def reply(self, text: str) -> Generator[str, None, None]:
        """The reply to a user's words, in pieces; what was read of it stays in the conversation.

        Raises `BadInput` for what cannot be asked, which changes nothing.
        """
        question = {"role": "user", "content": parts_of(text, self._shown)}
        messages, model = [*self.messages, question], self._load()
        budget = model.count(messages, max_tokens=self._options["max_tokens"])
        try:
            budget.check()
        except BadInput as error:
            if len(self.messages) == len(self._first):
                raise
            raise BadInput(f"the conversation is full, nothing was asked: {error}; /clear begins anew") from None
        if budget.total > NEARLY_FULL * budget.context:
            say(f"the conversation is nearly full: {budget}")
        said = ""
        try:
            for piece in model.chat(messages, stream=True, **self._options):
                said += piece
                yield piece
        except (GeneratorExit, KeyboardInterrupt):  # nobody waits for the rest
            self._go_on(messages, said)
            raise
        self._go_on(messages, said)

    def _go_on(self, messages: list[dict[str, Any]], said: str) -> None:
        if said.strip():
            self.messages, self._shown = [*messages, {"role": "assistant", "content": said.strip()}], []

    def command(self, line: str) -> bool | None:
        """Do what a line like `/image PATH` says: whether the conversation goes on; nothing where it is no command."""
        found = COMMAND.match(line)
        if found is None:
            return None
        name, rest = found[1], (found[2] or "").strip()
        if name == "image":
            if not rest:
                raise BadInput("/image: expected the path of a picture or clip, got nothing")
            self._shown.append(self._open(rest))
        elif name == "clear":
            self.messages, self._shown = list(self._first), []
        elif name == "help":
            print(HELP, file=sys.stderr)
        elif name != "exit":
            raise BadInput(f"/{name}: expected a command of /image, /clear, /help, /exit")
        return name != "exit"


def in_terminal(dialogue: Dialogue) -> None:
    """Lines are typed, until the end is."""
    with suppress(ImportError):
        import readline  # noqa: F401  (gives `input` its arrow keys)
    say("/help lists what else can be typed; Ctrl-D ends")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # there is no reply to stop: the line alone is given up
            print()
            continue
        try:
            going = dialogue.command(line) if line else True
            if going is False:
                return
            if going is None:
                printed(dialogue.reply(line))
        except KeyboardInterrupt:
            print()
            say("stopped")
        except VlmError as error:
            say(str(error))
        try:
            dialogue.keep()
        except KeyboardInterrupt:
            say("not written; it is after the next turn, or at the end")
        except VlmError as error:
            say(str(error))


def from_lines(dialogue: Dialogue, lines: Iterator[str], skip: Callable[[str, object], None], shown: bool) -> list[Any]:
    """A question a line, until the last one: the turns. A reply is printed as it comes where it is `shown`; what
    cannot be asked is handed to `skip`, and the others are asked all the same."""
    turns = []
    for line in (line.strip() for line in lines):
        try:
            going = dialogue.command(line) if line else True
            if going is False:
                break
            if going is None:
                reply = printed(dialogue.reply(line)) if shown else "".join(dialogue.reply(line)).strip()
                turns.append({"question": line, "reply": reply})
        except BadInput as error:
            skip(line, error)
        try:
            dialogue.keep()
        except VlmError as error:
            skip(line, error)
    return turns


def printed(pieces: Generator[str, None, None]) -> str:
    said = ""
    with closing(pieces):
        for piece in pieces:
            said += piece
            print(piece, end="", flush=True)
    print()
    return said.strip()
