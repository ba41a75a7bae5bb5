"""Decoding steps of one shape, so that a reply is the same whatever else is being written.

A product of B rows adds up in another order for another B: alone, a reply's logits would differ in their last digits
from those in a batch, and now and then its tokens (in a mixture also its experts, and that is more than last digits).
So a step has one of a few numbers of rows, some of them filler, in which any row comes to the same numbers. Which those
are depends on the processor's kernels, and is looked at when an engine begins: places in a matrix differ where a
vectorised loop leaves a few numbers over, or threads share a matrix out elsewhere than between rows.

It depends on how weights lie too. `[out, in]` is torch's order; with the inputs outermost (column-major) a product of
few rows in float32 goes along the weights and adds each row's numbers up the same way whatever their number: more sizes
agree, and such products are faster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.decoder import LanguageModel
from vlm.language.mixture.experts import RoutedExperts
from vlm.language.mixture.moe import Router, SwiGLU

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32)
FIRST = (8, 16, 32, 4)
"""The first of these that is steady is taken, and all that agree with it; one row, which is slow, if none is."""
CHUNKS, FIRST_CHUNKS = (32, 48, 64, 96, 128, 192, 256), (64, 32)
"""The same of chunks of prompts, for the products but the last; where none is steady each is read by itself."""
ENOUGH = 16
"""Rows of a step; the other order of weights is looked at where fewer agree."""
NUMBERS, DRAWS = 2**15, 8
"""That are compared of a shape, in so many random matrices at most: where a place differs, many of its numbers do."""
Work = Callable[[Tensor], Tensor]
Layout = Callable[[Tensor], Tensor]
_known: dict[Hashable, tuple[int, ...]] = {}
"""What was found in this process: the kernels mind shapes and types, not weights."""


class Rows(NamedTuple):
    """Numbers of rows, the least first, that agree."""

    steps: tuple[int, ...]
    chunks: tuple[int, ...]


def arranged(language: LanguageModel) -> Rows:
    """In which numbers of rows decoding steps, and chunks of prompts, give any row the same numbers, with this model on
    this machine. Weights are laid out in place, in the first order in which `ENOUGH` do of a step, or in which more do.
    """
    orders: list[Layout] = [torch.Tensor.contiguous, inputs_outermost]
    if language.embedding.weight.dtype == torch.float32:
        orders.reverse()
    lay, steps = orders[0], _steps(language, orders[0])
    if steps[-1] < ENOUGH and (others := _steps(language, orders[1]))[-1] > steps[-1]:
        lay, steps = orders[1], others
    _lay_out(language, lay)
    return Rows(steps, _agreeing(language, lay, CHUNKS, FIRST_CHUNKS, head=False))


@torch.no_grad()
def _lay_out(language: LanguageModel, lay: Layout) -> None:
    modules = [module for module in language.modules() if isinstance(module, nn.Linear | RoutedExperts)]
    weights = {id(weight): weight for module in modules for weight in module.parameters(recurse=False)}
    copied = False
    for weight in weights.values():
        before = weight.data_ptr()
        weight.data = lay(weight.data) if weight.ndim > 1 else weight.data
        copied |= weight.data_ptr() != before
    for rest in [*language.parameters(), *language.buffers()] if copied else []:
        if id(rest) not in weights or rest.ndim == 1:  # else it would keep the whole file of weights mapped
            rest.data = rest.data.clone()


def inputs_outermost(weight: Tensor) -> Tensor:
    """`[..., out, in]` in column-major order; as it is where it lies so."""
    return weight.mT.contiguous().mT


def _steps(language: LanguageModel, lay: Layout) -> tuple[int, ...]:
    return _agreeing(language, lay, SIZES, FIRST, head=True) or (1,)


def _agreeing(
    language: LanguageModel, lay: Layout, sizes: tuple[int, ...], first: tuple[int, ...], *, head: bool
) -> tuple[int, ...]:
    works, like = _works(language, lay, head), language.embedding.weight
    place = (frozenset(works), like.dtype, like.device, torch.get_num_threads(), lay, sizes)
    if place not in _known:
        _known[place] = _found(list(works.values()), sizes, first)
    return _known[place]


def _found(works: list[tuple[Work, Tensor]], sizes: tuple[int, ...], first: tuple[int, ...]) -> tuple[int, ...]:
    base = next((rows for rows in first if all(_steady(work, of, rows, rows) for work, of in works)), None)
    if base is None:
        return ()
    return tuple(size for size in sizes if size == base or all(_steady(work, of, size, base) for work, of in works))


@torch.inference_mode()
def _steady(work: Work, like_D: Tensor, rows: int, base: int) -> bool:
    """Whether each of `rows` rows is, in every place and beside any others, what it is among `base` rows."""
    generator = torch.Generator().manual_seed(0)
    most = max(rows, base)
    compared = draws = 0
    while compared < NUMBERS and draws < DRAWS:
        draws += 1
        x_B1D = 2 * torch.randn(most, 1, len(like_D), generator=generator).to(like_D.device, like_D.dtype)
        wanted_B1V = torch.cat([work(_filled(part, base))[: len(part)] for part in x_B1D.split(base)])
        compared += wanted_B1V.numel()
        for shift in {1, most // 2}:
            turned, expected = x_B1D.roll(shift, 0)[:rows], wanted_B1V.roll(shift, 0)[:rows]
            if not torch.equal(work(turned), expected):
                return False
        if not torch.equal(work(_filled(x_B1D[:1], rows))[:1], wanted_B1V[:1]):
            return False
    return True


def _filled(x_B1D: Tensor, rows: int) -> Tensor:
    return F.pad(x_B1D, (0, 0, 0, 0, 0, rows - len(x_B1D)))


def _works(language: LanguageModel, lay: Layout, head: bool) -> dict[Hashable, tuple[Work, Tensor]]:
    """What a step does to all rows at once, each of a shape once, and what a row of its input is like."""
    like = language.embedding.weight
    found: dict[Hashable, tuple[Work, Tensor]] = {}

    def add(key: Hashable, work: Callable[[], Work], width: int) -> None:
        if (key, width) not in found:
            found[key, width] = work(), like.new_empty(width)

    def product(weight_NK: Tensor, bias_N: Tensor | None = None, dtype: torch.dtype = like.dtype) -> None:
        def work() -> Work:
            some = weight_NK if weight_NK.any() else torch.randn_like(weight_NK)  # zeros would agree with everything
            return partial(_product, weight=lay(some.to(dtype)), bias=bias_N)

        add(("product", weight_NK.shape, bias_N is None, dtype), work, weight_NK.shape[1])

    for module in language.modules():
        if module is language.lm_head and not head:
            continue
        if isinstance(module, nn.Linear):
            product(module.weight, module.bias)
        elif isinstance(module, nn.RMSNorm):
            add("norm", partial(_same, module), len(module.weight))
        elif isinstance(module, SwiGLU):
            add("silu", partial(_same, F.silu), module.gate_proj.out_features)
        elif isinstance(module, Router):
            product(module.centroids.weight, None, torch.promote_types(like.dtype, torch.float32))
            add(("scores", module.cfg.scoring), partial(_same, module.scores), module.cfg.experts)
        elif isinstance(module, RoutedExperts):
            for weight_ENK in (module.gate_EFD, module.down_EDF):
                product(weight_ENK[0])
            add("silu", partial(_same, F.silu), module.gate_EFD.shape[1])
    return found


def _same(work: Work) -> Work:
    return work


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.to(weight.dtype), weight, bias)
