"""The conversation template: where pictures, instructions and replies stand in the token stream."""

from __future__ import annotations

from vlm.datasets.packing import IMAGE_SLOT
from vlm.text.tokenizer import TextTokenizer

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

    def prefix(self, visual_tokens: int, pictures: int = 1) -> list[int]:
        """The user turn up to the end of its pictures; one line a picture."""
        return self._user + ([IMAGE_SLOT] * visual_tokens + self._newline) * pictures

    def context(self, text: str) -> list[int]:
        """The user's words and the start of the reply."""
        return self.tokenizer.encode(text.strip()) + self._assistant

    def reply(self, text: str) -> list[int]:
        return [*self.tokenizer.encode(text.strip()), self.end]
