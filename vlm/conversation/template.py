"""The conversation template of our own cards: where pictures, instructions and replies stand in the token stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from vlm.conversation.messages import Message
from vlm.conversation.packing import IMAGE_SLOT
from vlm.conversation.tokenizer import TextTokenizer

CAPTION_PROMPT = "Describe the picture."
CLIP_PROMPT = "Describe the video."


class Line(NamedTuple):
    """A line of image slots, begun by the time of the frame where the prompt says it."""

    slots: int
    time: float | None = None


class Template:
    """SmolLM2's chat format (ChatML) without a system turn of its own: `<|im_start|>user`, pictures a line each, text,
    `<|im_end|>`, the reply."""

    def __init__(self, tokenizer: TextTokenizer):
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.control("<|im_start|>"), tokenizer.control("<|im_end|>")
        self._newline = tokenizer.encode("\n")

    def ids(self, messages: Sequence[Message], shown: Sequence[Sequence[Line]]) -> list[int]:
        """The tokens of a conversation; `shown` are the lines of each picture and clip in reading order.

        Where the last message is not the assistant's its reply begins, else that message goes on.
        """
        lines = iter(shown)
        ids: list[int] = []
        for message in messages:
            ids += self._turn(message.role)
            for number, part in enumerate(message.parts):
                if part.kind == "text":
                    ids += self.tokenizer.encode(part.text.strip())
                    ids += self._newline if number + 1 < len(message.parts) else []
                else:
                    ids += self._lines(next(lines))
            ids += [self.end, *self._newline]
        if messages and messages[-1].role == "assistant":
            return ids[: -1 - len(self._newline)]
        return ids + self._turn("assistant")

    def reply(self, text: str) -> list[int]:
        """The assistant's words and the token that ends them."""
        return [*self.tokenizer.encode(text.strip()), self.end]

    def _turn(self, role: str) -> list[int]:
        return [self.start, *self.tokenizer.encode(f"{role}\n")]

    def _lines(self, lines: Sequence[Line]) -> list[int]:
        ids: list[int] = []
        for line in lines:
            ids += [] if line.time is None else self.tokenizer.encode(stamp(line.time))
            ids += [IMAGE_SLOT] * line.slots + self._newline
        return ids


def tidy(caption: str) -> str:
    """A caption as a sentence: no space before punctuation, a capital, a full stop."""
    text = re.sub(r"\s+([.,;!?'])", r"\1", " ".join(caption.split())).rstrip(" .")
    return f"{text[:1].upper()}{text[1:]}." if text else text


def stamp(seconds: float) -> str:
    """How a prompt says when a frame is shown."""
    return f"<{seconds:.1f}s>"
