"""A `tokenizer.json` with the two habits we need: user text never becomes a control token, and ids come as lists."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vlm.errors import BadInput

END_OF_TEXT = "<|endoftext|>"


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


def learn_tokenizer(texts: list[str], size: int) -> str:
    """The `tokenizer.json` of a byte-level BPE (arXiv:1508.07909) of at most `size` tokens; 0 is the end of a text.

    Raises `ValueError` where the size does not even hold the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size <= len(alphabet):
        raise ValueError(f"a vocabulary of {size} has no room for {len(alphabet)} bytes and the end of a text")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()
