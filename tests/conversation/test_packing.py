from __future__ import annotations

import pytest
import tiny
import torch

from vlm.conversation.packing import IGNORE, IMAGE_SLOT, Branch, Packed, in_rows, pack

PREFIX = [1, *[IMAGE_SLOT] * 4, 2]
SEQUENCES = [
    Packed(PREFIX, [Branch([3], [4, 5, 6]), Branch([7, 8], [9]), Branch([10], [11, 12])]),
    Packed([13, *PREFIX], [Branch([14, 15], [16, 17])]),
]


@torch.no_grad()
@pytest.mark.parametrize("multiple", [1, 16])
def test_a_branch_computes_what_it_would_alone(multiple: int) -> None:
    model = tiny.vision_language()
    pictures = tiny.patches(2)
    batch = pack(SEQUENCES, multiple)
    logits = tiny.logits(model, batch.tokens_BT, pictures, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT)
    for row, sequence in enumerate(SEQUENCES):
        start = len(sequence.prefix)
        for branch in sequence.branches:
            ids = branch.context + branch.reply
            alone = tiny.logits(model, torch.tensor([sequence.prefix + ids]), pictures[row : row + 1])[0]
            packed = logits[row, start : start + len(ids)]
            torch.testing.assert_close(packed, alone[len(sequence.prefix) :], rtol=1e-4, atol=1e-5)
            start += len(ids)


def test_every_reply_token_is_predicted_by_the_token_before_it() -> None:
    batch = pack(SEQUENCES)
    assert batch.labels_BT[0].tolist() == [IGNORE] * 6 + [4, 5, 6, IGNORE] + [IGNORE, 9, IGNORE] + [11, 12, IGNORE]
    assert batch.positions_BT[0].tolist() == [*range(6), 6, 7, 8, 9, 6, 7, 8, 6, 7, 8]
    learned = int((batch.labels_BT != IGNORE).sum())
    assert learned == sum(len(branch.reply) for sequence in SEQUENCES for branch in sequence.branches)


def test_padding_is_seen_by_nobody_and_learns_nothing() -> None:
    batch = pack(SEQUENCES, multiple=16)
    assert batch.tokens_BT.shape == (2, 16)
    lengths = [16, 11]
    for row, length in enumerate(lengths):
        assert not batch.mask_BTT[row, :length, length:].any()
        assert bool((batch.labels_BT[row, length:] == IGNORE).all())
        assert bool((batch.tokens_BT[row, length:] == 0).all())
    # A row of the softmax is never empty.
    assert bool(batch.mask_BTT.any(dim=2).all())


@pytest.mark.parametrize(("multiple", "expected"), [(1, 16), (10, 20), (16, 16), (64, 64)])
def test_length_is_a_multiple(multiple: int, expected: int) -> None:
    assert pack(SEQUENCES, multiple).tokens_BT.shape[1] == expected


def test_no_token_sees_another_branch() -> None:
    mask = pack(SEQUENCES[:1]).mask_BTT[0]
    first, second = slice(6, 10), slice(10, 13)
    assert not mask[second, first].any()
    assert bool(mask[second, :6].all())
    assert not mask[:6, 6:].any()


def test_a_branch_without_context_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one context token"):
        pack([Packed([1], [Branch([], [2])])])


TURNS = Packed([1, 2, *[IMAGE_SLOT] * 4, 3, 4, 5, 6], learned=(range(2, 2), range(7, 9)))
"""Of several turns, the second of which is learned."""


@torch.no_grad()
def test_sequences_of_one_row_compute_what_they_would_alone() -> None:
    model = tiny.vision_language()
    pictures = tiny.patches(3)
    sequences = [*SEQUENCES, TURNS]
    batch = pack([sequences])
    together = tiny.logits(model, batch.tokens_BT, pictures, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT)
    start = 0
    for number, sequence in enumerate(sequences):
        one = pack([sequence])
        alone = tiny.logits(
            model, one.tokens_BT, pictures[number : number + 1], positions_BT=one.positions_BT, mask_BTS=one.mask_BTT
        )[0]
        torch.testing.assert_close(together[0, start : start + sequence.tokens], alone, rtol=1e-4, atol=1e-5)
        assert batch.labels_BT[0, start : start + sequence.tokens].tolist() == one.labels_BT[0].tolist()
        start += sequence.tokens
    assert start == batch.tokens_BT.shape[1]


def test_turns_that_are_learned_are_predicted_from_the_token_before() -> None:
    assert pack([TURNS]).labels_BT[0].tolist() == [IGNORE] * 6 + [4, 5, IGNORE, IGNORE]
    assert TURNS.replies == [[], [4, 5]]
    with pytest.raises(ValueError, match="at least one token before"):
        pack([Packed([1, 2], learned=(range(2),))])


def test_rows_are_filled() -> None:
    assert in_rows([5, 9, 4, 1, 6], 10) == [[0], [1, 3], [2, 4]]
    assert in_rows([12, 3], 10) == [[0], [1]]
    assert in_rows([], 10) == []
