"""Several replies behind one picture in one sequence, and several such sequences in one row of a batch.

The visual prefix is read once; each branch (a caption, or a question with its answer) sees the prefix and itself, not
its neighbours, and its positions go on from the prefix, so every branch computes what it would alone. So does each of
the sequences that share a row: they do not see each other, and each begins at position 0.

B rows, T tokens, I image slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

IMAGE_SLOT = -1
"""Stands for one visual token in the ids of our own cards' models; it is no id of any vocabulary."""

IGNORE = -100


@dataclass(frozen=True)
class Branch:
    """`context` is read, `reply` is learned."""

    context: list[int]
    reply: list[int]


@dataclass(frozen=True)
class Packed:
    prefix: list[int]
    branches: list[Branch] = field(default_factory=list)
    learned: tuple[range, ...] = ()
    """Places in the prefix that are learned too: the replies of a conversation of several turns."""

    @property
    def tokens(self) -> int:
        return len(self.prefix) + sum(len(branch.context) + len(branch.reply) for branch in self.branches)

    @property
    def replies(self) -> list[list[int]]:
        """All that is learned."""
        own = [self.prefix[places.start : places.stop] for places in self.learned]
        return own + [branch.reply for branch in self.branches]


@dataclass(frozen=True)
class PackedBatch:
    tokens_BT: Tensor
    """Ids; `IMAGE_SLOT` at visual tokens, 0 at padding."""
    positions_BT: Tensor
    mask_BTT: Tensor
    """True where a token (dimension 1) may look (dimension 2)."""
    labels_BT: Tensor
    """The id each token predicts, `IGNORE` where nothing is learned."""
    real_BT: Tensor
    """False at padding."""

    def to(self, device: torch.device) -> PackedBatch:
        return PackedBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def packed(prompts: Sequence[list[int]], replies: Sequence[list[int]]) -> Packed:
    """Replies behind prompts that begin alike: what they share, pictures and all, is read once.

    Of equal prompts the last token stays with each branch, which predicts from it.
    """
    shared = 0
    for tokens in zip(*(prompt[:-1] for prompt in prompts), strict=False):
        if len(set(tokens)) > 1:
            break
        shared += 1
    branches = [Branch(prompt[shared:], reply) for prompt, reply in zip(prompts, replies, strict=True)]
    return Packed(prompts[0][:shared], branches)


def pack(rows: Sequence[Packed | Sequence[Packed]], multiple: int = 1) -> PackedBatch:
    """Right-padded batch, of a sequence a row or of several; the length is rounded up to `multiple`, so that few shapes
    occur."""
    filled = [_row([row] if isinstance(row, Packed) else row) for row in rows]
    longest = max(len(row[0]) for row in filled)
    longest += -longest % multiple
    filler = (0, 0, -1, -1, IGNORE)
    columns = [
        torch.tensor([row[column] + [empty] * (longest - len(row[0])) for row in filled])
        for column, empty in enumerate(filler)
    ]
    tokens_BT, positions_BT, sequence_BT, segment_BT, labels_BT = columns
    seen = segment_BT[:, :, None] == segment_BT[:, None, :]
    seen |= (segment_BT == 0)[:, None, :]
    seen &= sequence_BT[:, :, None] == sequence_BT[:, None, :]
    seen &= torch.ones(longest, longest, dtype=torch.bool).tril()
    return PackedBatch(tokens_BT, positions_BT, seen, labels_BT, sequence_BT >= 0)


def in_rows(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which sequences share a row of at most `most` tokens: the longest first, each into the first row with room for it
    (first-fit decreasing). A longer one has a row of its own. Rows are in the order of their first sequence."""
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        row = next((row for row, left in enumerate(room) if left >= lengths[number]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(most)
        rows[row].append(number)
        room[row] -= lengths[number]
    return sorted(sorted(row) for row in rows)


def _row(sequences: Sequence[Packed]) -> tuple[list[int], ...]:
    """Tokens, positions, sequences, segments and labels."""
    columns: tuple[list[int], ...] = ([], [], [], [], [])
    for number, sequence in enumerate(sequences):
        tokens, positions, segments, labels = _columns(sequence)
        for column, more in zip(columns, (tokens, positions, [number] * len(tokens), segments, labels), strict=True):
            column += more
    return columns


def _columns(sequence: Packed) -> tuple[list[int], list[int], list[int], list[int]]:
    """Tokens, positions, segments (0 is the prefix) and labels.

    A token's label is the next token of its own branch, so the last context token learns the first reply token.
    """
    tokens = list(sequence.prefix)
    positions = list(range(len(tokens)))
    segments = [0] * len(tokens)
    labels = [IGNORE] * len(tokens)
    for places in sequence.learned:
        if places.start < 1:
            raise ValueError("what is learned needs at least one token before it to predict its first token from")
        labels[places.start - 1 : places.stop - 1] = tokens[places.start : places.stop]
    for number, branch in enumerate(sequence.branches, 1):
        if not branch.context:
            raise ValueError("a branch needs at least one context token to predict its first reply token from")
        ids = branch.context + branch.reply
        tokens += ids
        positions += range(len(sequence.prefix), len(sequence.prefix) + len(ids))
        segments += [number] * len(ids)
        labels += [IGNORE] * (len(branch.context) - 1) + branch.reply + [IGNORE]
    return tokens, positions, segments, labels
