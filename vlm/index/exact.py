"""The exact nearest rows, most of the way in half the bytes: bfloat16 products, a bound on their error, float32 again.

For a row v, a query q and their roundings v', q' the products differ by |qv - q'v'| <= |q| |v - v'| + |q - q'| |v'|
(Cauchy-Schwarz). The lengths of the differences are known exactly, so with E the bound and t the k-th largest rough
score, k rows score at least t - E in truth, and no row whose rough score is below t - 2E can be among the first k. The
rest are scored in float32, row by row; where they are too many, all rows are. What is returned is the plain scan's
answer to the last bit.

t itself is not looked for among N scores: the maxima of blocks of rows are one pass, and the k-th largest of them is a
lower bound of t.

N rows, Q queries, C candidates, D width, B blocks of rows.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

BLOCK, QUERIES = 64, 64
"""Rows whose maximum is taken together; queries that are multiplied at once, which bounds the scores in memory."""
STEP = 1024
"""Rows are multiplied in multiples of this: oneDNN builds a kernel for every new number of them, and keeps a thousand,
which are half a gigabyte."""
FEW, MANY = 0.05, 0.25
"""Up to this share of the rows the plain scan of them is quicker than the rough one of all; from that share on
candidates are not worth gathering."""
UNIT_ROUNDOFF = 2.0**-8
"""Of bfloat16: half the distance between two neighbours, relative."""


def plain(vectors_ND: Vectors, query_D: Vectors) -> Vectors:
    """float32 scores `[N]`. Each row's depends on that row alone, where a matrix product's depend on its neighbours."""
    return np.einsum("nd,d->n", vectors_ND, query_D)


def best(scores_C: Vectors, rows_C: Rows, top: int) -> tuple[Rows, Vectors]:
    """The `top` rows in order of score, ties in order of rows. `rows_C` rises."""
    order = np.argsort(-scores_C, kind="stable")[:top]
    return rows_C[order], scores_C[order]


@functools.cache
def rough_type() -> torch.dtype:
    """bfloat16 where the processor multiplies it, else float32: the search is the same."""
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        processor = ""
    return torch.bfloat16 if "amx_bf16" in processor or "avx512_bf16" in processor else torch.float32


class Rough:
    """Rows rounded for the rough scan, kept in step with the float32 ones."""

    def __init__(self, width: int, dtype: torch.dtype | None = None):
        self.width, self.dtype = width, dtype or rough_type()
        self._rows = torch.zeros((0, width), dtype=self.dtype)
        self._lost = 0.0
        """The longest difference between a row and its rounding; it never shrinks, which keeps the bound true."""
        self._longest = 0.0

    def write(self, rows: Rows, vectors: Vectors, capacity: int) -> None:
        """Round `vectors` into `rows`; there is room for `capacity` rows afterwards."""
        if capacity > len(self._rows):
            capacity += -capacity % STEP
            grown = torch.zeros((capacity, self.width), dtype=self.dtype)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        given = torch.from_numpy(np.ascontiguousarray(vectors))
        rounded = given.to(self.dtype)
        self._rows[torch.from_numpy(rows)] = rounded
        if len(rows):
            self._lost = max(self._lost, float((given - rounded.float()).norm(dim=1).max()))
            self._longest = max(self._longest, float(given.norm(dim=1).max()))

    def candidates(self, queries_QD: Vectors, count: int, top: int, allowed: Mask | None) -> list[Rows | None]:
        """For each query rows that hold the `top` best of the first `count`, rising; `None` where they are too many."""
        queries = torch.from_numpy(np.ascontiguousarray(queries_QD)).double()
        units = (queries / queries.norm(dim=1, keepdim=True).clamp_min(1e-300)).float()
        found: list[Rows | None] = []
        for some in units.split(QUERIES):
            found += self._of_some(some, count, top, allowed)
        return found

    def _of_some(self, units_QD: Tensor, count: int, top: int, allowed: Mask | None) -> list[Rows | None]:
        rounded = units_QD.to(self.dtype)
        filled = count + -count % STEP
        blocks = filled // BLOCK
        scores = self._rows[:filled] @ rounded.T
        scores[count:] = -torch.inf
        if allowed is not None:
            scores[:count].masked_fill_(torch.from_numpy(~allowed)[:, None], -torch.inf)
        blocks_BKQ = scores.view(blocks, BLOCK, -1)
        best_BQ = blocks_BKQ.amax(1).float()
        if top > blocks:
            return [None] * len(units_QD)
        least_Q = best_BQ.topk(top, dim=0).values[-1]
        # What is masked stays out even where fewer than `top` blocks hold anything.
        least_Q = (least_Q - 2 * self._bound(units_QD, rounded, least_Q)).clamp_min(torch.finfo(self.dtype).min)
        query, block = (best_BQ >= least_Q).T.nonzero(as_tuple=True)
        pair, offset = (blocks_BKQ[block, :, query].float() >= least_Q[query, None]).nonzero(as_tuple=True)
        rows, owner = (block[pair] * BLOCK + offset).numpy(), query[pair]
        ends = torch.bincount(owner, minlength=len(units_QD)).cumsum(0).tolist()
        spans = zip([0, *ends[:-1]], ends, strict=True)
        return [rows[start:end] if end - start <= MANY * count else None for start, end in spans]

    def _bound(self, units: Tensor, rounded: Tensor, near_Q: Tensor) -> Tensor:
        """What a rough score near `near_Q` can be off by, of a query of length 1."""
        lost_Q = (units - rounded.float()).norm(dim=1)
        # Both sides add up D float32 products, in whatever order.
        sums = self.width * 2.0**-22 * self._longest
        stored = UNIT_ROUNDOFF * (near_Q.abs() + 0.1 * self._longest) if self.dtype is torch.bfloat16 else 0.0
        return self._lost + lost_Q * (self._longest + self._lost) + sums + stored
