"""A `tokenizer.json` with the two habits we need: user text never becomes a control token, and ids come as lists."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from vlm.errors import BadInput


class TextTokenizer:
    def __init__(self, path: Path):
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # `<|im_end|>` typed by a user is text, not the end of a turn.
        self._tokenizer.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, without control tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=special)]

    def control(self, token: str) -> int:
        """The id of a control token such as `<|im_end|>`."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BadInput(f"tokenizer has no token {token!r}")
        return number

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
