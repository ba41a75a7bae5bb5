"""INT8 products in two ways: oneDNN's kernels, and plain float32 of the same rounded numbers.

Which is faster depends on the CPU: on Intel with matrix units oneDNN's take a fraction of float32's time, on AMD EPYC
without them eight hundred times as long. So both are timed once, at the shape that is wanted.

N rows, D width of the input, E width of the output.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-6
ROWS = 64
"""Of the product that is timed: few, since the slow kernel takes seconds for a picture's."""


@dataclass(frozen=True)
class Scale:
    """A signed byte `b` stands for `(b - zero) * step`."""

    step: float
    zero: int


class Product(Protocol):
    """`x W^T + b` of bytes `x [N, D]`."""

    scale: Scale
    """Of `x`."""

    def __init__(self, weight_ED: Tensor, bias_E: Tensor | None, scale: Scale): ...

    def __call__(self, x: Tensor, dtype: torch.dtype, onto: Tensor | None = None) -> Tensor:
        """`[N, E]` as `dtype`; what it is added `onto` is written over."""

    def gelu(self, x: Tensor, form: str, to: Scale) -> Tensor:
        """GELU of the product, as bytes of the scale `to`; `form` is oneDNN's `none` or `tanh`."""


class OneDNNProduct:
    """oneDNN's kernels, those that `torch.compile` uses: they add biases and residuals and apply the activation."""

    def __init__(self, weight_ED: Tensor, bias_E: Tensor | None, scale: Scale):
        self.step_E, rounded_ED = rounded_rows(weight_ED)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded_ED, None)
        self.zero_E = torch.zeros(len(weight_ED), dtype=torch.int64)
        self.bias_E, self.scale = bias_E, scale

    def __call__(self, x: Tensor, dtype: torch.dtype, onto: Tensor | None = None) -> Tensor:
        own = (x, self.scale.step, self.scale.zero, self.weight, self.step_E, self.zero_E)
        if onto is None:
            return torch.ops.onednn.qlinear_pointwise(*own, self.bias_E, 1.0, 0, dtype, "none", [], "")
        add = torch.ops.onednn.qlinear_pointwise.binary
        return add(*own, onto, self.bias_E, 1.0, 0, dtype, 1.0, 0, "sum", 1.0, "none", [], "")

    def gelu(self, x: Tensor, form: str, to: Scale) -> Tensor:
        own = (x, self.scale.step, self.scale.zero, self.weight, self.step_E, self.zero_E)
        return torch.ops.onednn.qlinear_pointwise(*own, self.bias_E, to.step, to.zero, torch.int8, "gelu", [], form)


class PlainProduct:
    """The same rounded numbers, multiplied in float32: on any CPU, at float32's speed."""

    def __init__(self, weight_ED: Tensor, bias_E: Tensor | None, scale: Scale):
        step_E, rounded_ED = rounded_rows(weight_ED)
        self.weight_ED = rounded_ED.float() * step_E[:, None]
        self.bias_E, self.scale = bias_E, scale

    def __call__(self, x: Tensor, dtype: torch.dtype, onto: Tensor | None = None) -> Tensor:
        product_NE = F.linear((x.float() - self.scale.zero) * self.scale.step, self.weight_ED, self.bias_E)
        return product_NE.to(dtype) if onto is None else onto.add_(product_NE)

    def gelu(self, x: Tensor, form: str, to: Scale) -> Tensor:
        return as_bytes(F.gelu(self(x, torch.float32), approximate=form) / to.step + to.zero)


def as_bytes(x: Tensor) -> Tensor:
    """What is scaled already, as signed bytes."""
    return x.round_().clamp_(-128, 127).to(torch.int8)


def rounded_rows(weight_ED: Tensor) -> tuple[Tensor, Tensor]:
    """A scale a row `[E]`, and the bytes `[E, D]`."""
    step_E = (weight_ED.abs().amax(1) / 127).clamp_min(TINY**2).contiguous()
    return step_E, (weight_ED / step_E[:, None]).round().to(torch.int8)


def supported() -> bool:
    """Whether this CPU and this torch have oneDNN's kernels at all."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


@cache
def fastest(width: int, wide: int) -> type[Product]:
    """The faster way on this CPU to multiply `[N, width]` by `[wide, width]`, timed once a process."""
    if not supported():
        return PlainProduct
    weight_ED = torch.linspace(-1, 1, width * wide).view(wide, width)
    x = torch.linspace(-128, 127, ROWS * width).view(ROWS, width).to(torch.int8)
    onednn, plain = (way(weight_ED, None, Scale(0.01, 0)) for way in (OneDNNProduct, PlainProduct))
    seconds = _seconds(lambda: plain(x, torch.float32), 5)
    # A kernel that is built at its first call is waited for; one that is hundreds of times slower is not asked again.
    repeats = 1 if _seconds(lambda: onednn(x, torch.float32), 1) > 100 * seconds else 5
    return OneDNNProduct if _seconds(lambda: onednn(x, torch.float32), repeats) < seconds else PlainProduct


def _seconds(call: Callable[[], Tensor], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)
