"""The conversation template: where pictures, instructions and replies stand in the token stream."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlm.conversation.packing import IMAGE_SLOT
from vlm.conversation.tokenizer import TextTokenizer

CAPTION_PROMPT = "Describe the picture."
CLIP_PROMPT = "Describe the video."


class Template:
    """SmolLM2's chat format without a system turn: `<|im_start|>user`, pictures, text, `<|im_end|>`, the reply."""

    def __init__(self, tokenizer: TextTokenizer):
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.control("<|im_start|>"), tokenizer.control("<|im_end|>")
        self._newline = tokenizer.encode("\n")
        self._user = [self.start, *tokenizer.encode("user\n")]
        self._assistant = [self.end, *self._newline, self.start, *tokenizer.encode("assistant\n")]

    def prefix(self, visual_tokens: int, pictures: int = 1, times: Sequence[float] = ()) -> list[int]:
        """The user turn up to the end of its pictures; one line a picture, begun by its time where `times` has it."""
        slots = [IMAGE_SLOT] * visual_tokens + self._newline
        if not times:
            return self._user + slots * pictures
        if len(times) != pictures:
            raise ValueError(f"expected the time of each of {pictures} pictures, got {len(times)}")
        return self._user + [token for time in times for token in self.tokenizer.encode(stamp(time)) + slots]

    def context(self, text: str) -> list[int]:
        """The user's words and the start of the reply."""
        return self.tokenizer.encode(text.strip()) + self._assistant

    def reply(self, text: str) -> list[int]:
        return [*self.tokenizer.encode(text.strip()), self.end]


def tidy(caption: str) -> str:
    """A caption as a sentence: no space before punctuation, a capital, a full stop."""
    text = re.sub(r"\s+([.,;!?'])", r"\1", " ".join(caption.split())).rstrip(" .")
    return f"{text[:1].upper()}{text[1:]}." if text else text


def stamp(seconds: float) -> str:
    """How a prompt says when a frame is shown."""
    return f"<{seconds:.1f}s>"
