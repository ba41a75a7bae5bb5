"""Rows of a mixture layer laid out so that few large products compute all experts.

A product an expert is slow where an expert has few rows: the call and its threads cost more than reading the weights,
and a small product does not share out well among threads. So experts at equal distances (every one, every third) that
have about as many rows are multiplied as one batch, their rows filled up to the longest: a block. Blocks of a few
hundred rows together are a part, whose states stay in the processor's cache between one product and the next.

E experts, T tokens, k chosen experts, R routed rows (T * k, less the choices of -1, which are none), P rows with
padding, K and N widths of a product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PART_ROWS = 512
LEAST_EXPERTS = 4
"""A block may have this many experts, however many rows that is."""
TILE_ROWS = 16
"""oneDNN multiplies 16-bit numbers in tiles of so many rows, and builds a kernel for every new shape."""


class Block(NamedTuple):
    """Experts that are multiplied as one batch, `each` rows of every one."""

    experts: range
    each: int
    start: int
    """Its first row in its part."""

    @property
    def weights(self) -> slice:
        return slice(self.experts.start, self.experts.stop, self.experts.step)

    def of(self, rows_PK: Tensor) -> Tensor:
        """Its rows, `[experts, each, K]`."""
        count = len(self.experts)
        return rows_PK[self.start : self.start + count * self.each].view(count, self.each, -1)


@dataclass
class Part:
    blocks: list[Block]
    tokens_P: Tensor
    """Which token a row is; padding is one of its expert's."""
    gates_P: Tensor
    """What a row counts; 0 for padding."""

    def product(self, rows_PK: Tensor, weight_ENK: Tensor) -> Tensor:
        """Each expert's rows times its own matrix, `[P, N]`."""
        out_PN = rows_PK.new_empty(len(rows_PK), weight_ENK.shape[1])
        for block in self.blocks:
            torch.bmm(block.of(rows_PK), weight_ENK[block.weights].mT, out=block.of(out_PN))
        return out_PN

    def weight_gradient(self, grad_PN: Tensor, rows_PK: Tensor, into_ENK: Tensor) -> None:
        """The gradient of the matrices of `product`."""
        for block in self.blocks:
            torch.bmm(block.of(grad_PN).mT, block.of(rows_PK), out=into_ENK[block.weights])


class Dispatch:
    """The parts that compute every chosen pair of token and expert.

    Planned with numpy: at one token, a dozen small operations of torch would cost as much as the products.
    """

    def __init__(self, gates_Tk: Tensor, chosen_Tk: Tensor, experts: int):
        device, (tokens, k) = chosen_Tk.device, chosen_Tk.shape
        # 16-bit numbers are sorted by radix.
        choices = chosen_Tk.flatten().cpu().numpy().astype(np.int16)
        order_R = choices.argsort(kind="stable")[np.count_nonzero(choices < 0) :]
        counts_E = np.bincount(choices[order_R], minlength=experts)
        called, idle = np.flatnonzero(counts_E), np.flatnonzero(counts_E == 0)
        size = max(LEAST_EXPERTS, PART_ROWS * experts // max(1, tokens * k))
        tile = TILE_ROWS if gates_Tk.dtype in (torch.bfloat16, torch.float16) else 1
        parts = parts_of(counts_E.tolist(), size, tile)
        each_E = np.zeros_like(counts_E)
        for block in (block for blocks, _ in parts for block in blocks):
            each_E[block.weights] = block.each
        first_E, room_E = counts_E.cumsum() - counts_E, each_E.cumsum() - each_E
        place_R = np.arange(len(order_R)) + np.repeat(room_E - first_E, counts_E)
        # Padding repeats a row of its expert: it cannot overflow where that does not.
        token_P = np.repeat(order_R[first_E[called]] // k, each_E[called])
        token_P[place_R] = order_R // k
        row_Tk = np.full(tokens * k, len(token_P))
        row_Tk[order_R] = place_R

        self.idle: list[int] = idle.tolist()
        """Experts that nobody chose."""
        self.row_Tk = torch.from_numpy(row_Tk).to(device).view(tokens, k)
        """The row of a token's choice, counted over all parts; one past the last where it is not used."""
        gates_P = gates_Tk.new_zeros(len(token_P) + 1).index_copy_(0, self.row_Tk.flatten(), gates_Tk.flatten())[:-1]
        sizes = [rows for _, rows in parts]
        rows = zip(torch.from_numpy(token_P).to(device).split(sizes), gates_P.split(sizes), strict=True)
        self.parts = [Part(blocks, *its) for (blocks, _), its in zip(parts, rows, strict=True)]


def parts_of(counts: list[int], size: int, tile: int = 1) -> list[tuple[list[Block], int]]:
    """Blocks of at most `size` of the experts that have rows, gathered into parts; with each part's number of rows."""
    parts: list[tuple[list[Block], int]] = []
    called = [expert for expert, count in enumerate(counts) if count]
    while called:
        experts = _alike(called, counts, size)
        called = called[len(experts) :]
        each = max(counts[expert] for expert in experts)
        each += -each % tile if each > 1 else 0
        rows = each * len(experts)
        if parts and parts[-1][1] + rows <= PART_ROWS:
            blocks, before = parts[-1]
            parts[-1] = ([*blocks, Block(experts, each, before)], before + rows)
        else:
            parts.append(([Block(experts, each, 0)], rows))
    return parts


def _alike(called: list[int], counts: list[int], size: int) -> range:
    """The first of the called experts that lie at equal distances and need little padding.

    Padding up to half of the rows, or eight rows an expert, costs less than another block.
    """
    first, step = called[0], called[1] - called[0] if len(called) > 1 else 1
    most = real = taken = 0
    for number, expert in enumerate(called[:size], start=1):
        most, real = max(most, counts[expert]), real + counts[expert]
        if expert != first + taken * step or most * number - real > real // 2 + 8 * number:
            break
        taken = number
    return range(first, first + (taken - 1) * step + 1, step)
