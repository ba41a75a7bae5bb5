"""Rotary positions (RoPE, arXiv:2104.09864) and the ways to stretch them to longer texts.

B batch, T tokens, H heads, K rotated width of a head, J = K / 2 rotated pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.language.config.rotary import PlainRope, Rope


class Rotary(nn.Module):
    """Cosines and sines `[B, 1, T, K]` of each position."""

    def __init__(self, width: int, theta: float, rope: Rope | None = None):
        super().__init__()
        self.width, self.theta, self.rope = width, theta, rope or PlainRope()

    def forward(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # Computed here in float32, not kept as a buffer: casting a model to bfloat16 would spoil the frequencies.
        frequencies_J = self.rope.frequencies(self.width, self.theta, positions_BT)
        angles = positions_BT[:, None, :, None].float() * frequencies_J
        angles = angles.repeat_interleave(2, dim=-1) if self.rope.interleaved else torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        if self.rope.amplitude != 1.0:
            cos, sin = cos * self.rope.amplitude, sin * self.rope.amplitude
        return cos.to(dtype), sin.to(dtype)


def rotate(x_BHTK: Tensor, rotary: tuple[Tensor, Tensor], interleaved: bool = False) -> Tensor:
    """Turn each pair by its angle; what a head has beyond the rotated width stays as it is."""
    cos, sin = rotary
    width = cos.shape[-1]
    if width < x_BHTK.shape[-1]:
        turned, rest = x_BHTK.split([width, x_BHTK.shape[-1] - width], dim=-1)
        return torch.cat([rotate(turned, rotary, interleaved), rest], dim=-1)
    if interleaved:
        first, second = x_BHTK.unflatten(-1, (-1, 2)).unbind(-1)
        return x_BHTK * cos + torch.stack([-second, first], dim=-1).flatten(-2) * sin
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos + torch.cat([-second, first], dim=-1) * sin
