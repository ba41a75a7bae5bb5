"""A `tokenizer.json` with two habits: a text never becomes a control token unless asked for, and ids come as lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vlm.errors import BadInput

END_OF_TEXT = "<|endoftext|>"


class TextTokens(NamedTuple):
    """What is read of a text, in tokens, the ones that begin and end it among them."""

    read: int
    total: int
    unknown: int = 0
    """Words without an entry in the vocabulary: all of them look alike to the model."""
    known: int = 1

    @classmethod
    def of(cls, ids: Sequence[int], limit: int, unknown: int | None, control: Collection[int] = ()) -> TextTokens:
        """`ids` of the whole text, of which `limit` are read; `control` tokens are no words."""
        strange = 0 if unknown is None else list(ids).count(unknown)
        return cls(min(len(ids), limit), len(ids), strange, sum(i not in control for i in ids) - strange)

    def notes(self) -> list[str]:
        """What is lost of it, a line each."""
        lost = [f"{self.total} tokens, of which the first {self.read} are read"] if self.total > self.read else []
        if self.unknown and not self.known:
            return [*lost, "none of its words is in the model's vocabulary: it is like any other such text"]
        return [*lost, f"{self.unknown} words are not in the model's vocabulary"] if self.unknown else lost


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

    def encode_batch(self, texts: list[str], *, special: bool = False, limit: int | None = None) -> list[list[int]]:
        """With `special` the tokens that begin and end a text are put there; of one longer than `limit` the end of the
        text is cut, not the token that ends it."""
        rows = []
        for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=special):
            ids, marks = encoding.ids, encoding.special_tokens_mask
            ending = next((n for n, mark in enumerate(reversed(marks)) if not mark), 0) if special else 0
            rows.append(ids if limit is None or len(ids) <= limit else ids[: limit - ending] + ids[len(ids) - ending :])
        return rows

    def text_tokens(self, texts: list[str], limit: int, *, special: bool = False) -> list[TextTokens]:
        """What a model that reads `limit` tokens of a text reads of each."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        number = self._tokenizer.token_to_id(unknown) if unknown else None
        found = self._tokenizer.encode_batch(texts, add_special_tokens=special)
        return [
            TextTokens.of(
                e.ids, limit, number, {i for i, mark in zip(e.ids, e.special_tokens_mask, strict=True) if mark}
            )
            for e in found
        ]

    def control(self, token: str) -> int:
        """The id of a control token such as `<|im_end|>`."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BadInput(f"tokenizer has no token {token!r}")
        return number

    def vocabulary(self) -> dict[str, int]:
        """Every token with its id, control tokens among them."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def to_json(self) -> str:
        """The content of its `tokenizer.json`."""
        return self._tokenizer.to_str()

    def decode(self, ids: list[int], *, control: bool = False) -> str:
        """The text; control tokens are left out unless `control`."""
        return self._tokenizer.decode(ids, skip_special_tokens=not control)


def transformers_text_tokens(tokenizer: Any, texts: Sequence[str], limit: int) -> list[TextTokens]:
    """`TextTokenizer.text_tokens` of a tokenizer of transformers. Where it has no token of its own for what it does not
    know (CLIP's is the one that ends a text), nothing is unknown."""
    control = {*tokenizer.all_special_ids}
    unknown = tokenizer.unk_token_id
    if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        unknown = None
    rows = tokenizer(list(texts))["input_ids"]
    return [TextTokens.of(ids, limit, unknown, control - {unknown}) for ids in rows]


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
