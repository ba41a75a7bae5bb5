"""A `tokenizer.json` with two habits: a text never becomes a control token unless asked for, and ids come as lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vlm.errors import BadInput

END_OF_TEXT = "<|endoftext|>"


class TextTokenizer:
    def __init__(self, path: Path, *, reads_control: bool = False, added: Sequence[str] = ()):
        """`reads_control`: control tokens in a text are read as such, which some published templates rely on; `added`
        are control tokens it gets where it has none of the name. Raises `BadInput` where there is no tokenizer."""
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise BadInput(f"{path}: not a tokenizer: {' '.join(str(error).split())}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.add_special_tokens(list(added))
        # `<|im_end|>` typed by a user is text, not the end of a turn.
        self._tokenizer.encode_special_tokens = not reads_control

    def encode(self, text: str) -> list[int]:
        """Plain text to ids; nothing is put before or after it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=special)]

    def control(self, token: str) -> int:
        """The id of a control token such as `<|im_end|>`."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BadInput(f"tokenizer has no token {token!r}")
        return number

    def to_json(self) -> str:
        """The content of its `tokenizer.json`."""
        return self._tokenizer.to_str()

    def decode(self, ids: list[int], *, control: bool = False) -> str:
        """The text; control tokens are left out unless `control`."""
        return self._tokenizer.decode(ids, skip_special_tokens=not control)


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
