"""Large contrastive batches in the memory of small ones (GradCache, arXiv:2101.06983, section 3).

A contrastive loss needs all vectors of the batch at once, but its gradient with respect to them is all that the
encoders need: every chunk is encoded twice, first without a graph, then with one that lives only while that chunk's
gradient flows back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Encoder = Callable[[Any], Tensor]


def backward_in_chunks(
    sides: Sequence[tuple[Encoder, Sequence[Any]]], loss: Callable[..., Tensor], weight: float = 1.0
) -> Tensor:
    """Add to the parameters' gradients what `loss(vectors of side 1, vectors of side 2, ...).backward()` would.

    Args:
        sides: an encoder and the chunks it is to encode, each to vectors `[rows of the chunk, D]`; for pictures and
            texts, say.
        loss: of the vectors `[N, D]` of each side, in order; its own parameters (temperature) get their gradients too.
        weight: what the gradients are multiplied by.

    Returns the loss, detached. Random parts of an encoder (dropout) see the same numbers both times.
    """
    states: list[list[Tensor]] = []
    vectors: list[Tensor] = []
    with torch.no_grad():
        for encode, chunks in sides:
            states.append([])
            rows = []
            for chunk in chunks:
                states[-1].append(torch.get_rng_state())
                rows.append(encode(chunk))
            vectors.append(torch.cat(rows).requires_grad_())
    after = torch.get_rng_state()
    value = loss(*vectors)
    (weight * value).backward()
    for (encode, chunks), rng, side in zip(sides, states, vectors, strict=True):
        assert side.grad is not None
        done = 0
        for chunk, state in zip(chunks, rng, strict=True):
            torch.set_rng_state(state)
            rows_CD = encode(chunk)
            if rows_CD.requires_grad:  # a locked side (LiT) has nothing to learn
                rows_CD.backward(side.grad[done : done + len(rows_CD)])
            done += len(rows_CD)
    torch.set_rng_state(after)
    return value.detach()
