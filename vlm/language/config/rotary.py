"""Kinds of rotary positions as data, with the angles that each stands for.

J = K / 2 rotated pairs of a head.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from vlm.config import Config


class Rope(Config):
    """What every kind of rotary positions has."""

    interleaved: bool = False
    """Neighbours (0, 1), (2, 3) ... are the rotated pairs; otherwise a head's first half pairs with its second."""
    share: float = Field(default=1.0, gt=0, le=1)
    """The part of a head, from its start, that is rotated."""

    @property
    def amplitude(self) -> float:
        """Cosines and sines are multiplied by this."""
        return 1.0

    @property
    def score_scale(self) -> float:
        """Latent attention's scores are multiplied by this."""
        return 1.0

    def frequencies(self, width: int, theta: float, positions_BT: Tensor) -> Tensor:
        """Radians a token of each pair, `[J]`, float32."""
        return _plain(width, theta, positions_BT.device)

    def fixed(self, tokens: int) -> bool:
        """Whether a text of so many tokens turns as any shorter one does."""
        return True

    def context(self, max_positions: int) -> int:
        """Tokens that a model whose config says `max_positions` reads."""
        return max_positions


class PlainRope(Rope):
    kind: Literal["plain"] = "plain"


class LinearRope(Rope):
    """Position interpolation (arXiv:2306.15595): every position divided by `factor`."""

    kind: Literal["linear"]
    factor: PositiveFloat

    def frequencies(self, width: int, theta: float, positions_BT: Tensor) -> Tensor:
        return _plain(width, theta, positions_BT.device) / self.factor

    def context(self, max_positions: int) -> int:
        return int(max_positions * self.factor)


class DynamicRope(Rope):
    """Dynamic NTK: a larger base as soon as a text is longer than `original_positions` (YaRN's paper, appendix B.2).

    Beyond them the base grows with every token, and cached keys keep the one they were read with: as in transformers, a
    text read with a cache is no longer quite the same as without.
    """

    kind: Literal["dynamic"]
    factor: PositiveFloat
    original_positions: PositiveInt

    def frequencies(self, width: int, theta: float, positions_BT: Tensor) -> Tensor:
        longest = max(int(positions_BT.max()) + 1, self.original_positions)
        stretch = self.factor * longest / self.original_positions - (self.factor - 1)
        return _plain(width, theta * stretch ** (width / (width - 2)), positions_BT.device)

    def fixed(self, tokens: int) -> bool:
        return tokens <= self.original_positions

    def context(self, max_positions: int) -> int:
        return int(max_positions * self.factor)


class YarnRope(Rope):
    """YaRN (arXiv:2309.00071, section 3): slow pairs are interpolated, fast ones kept, those between are blended."""

    kind: Literal["yarn"]
    factor: PositiveFloat
    original_positions: PositiveInt
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    """Round the ends of the ramp to whole pairs."""
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    """DeepSeek-V2's two temperatures; the second also scales the scores of latent attention."""
    attention_factor: float | None = None
    """Takes the place of the amplitude that follows from the factor and the temperatures."""

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return temperature(self.factor, self.mscale) / temperature(self.factor, self.mscale_all_dim)
        return temperature(self.factor, 1.0)

    @property
    def score_scale(self) -> float:
        return temperature(self.factor, self.mscale_all_dim) ** 2

    def frequencies(self, width: int, theta: float, positions_BT: Tensor) -> Tensor:
        plain_J = _plain(width, theta, positions_BT.device)
        low, high = (self._pair(turns, width, theta) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        pairs_J = torch.arange(width // 2, device=positions_BT.device).float()
        slow_J = ((pairs_J - low) / ((high - low) or 1e-3)).clamp(0, 1)
        return plain_J / self.factor * slow_J + plain_J * (1 - slow_J)

    def context(self, max_positions: int) -> int:
        return max(max_positions, int(self.original_positions * self.factor))

    def _pair(self, turns: float, width: int, theta: float) -> float:
        """The pair that turns this often over the original length (equation 17 solved for the pair)."""
        return width * math.log(self.original_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))


class Llama3Rope(Rope):
    """Llama 3.1's: wavelengths beyond the original length are interpolated, short ones kept, between them a blend."""

    kind: Literal["llama3"]
    factor: PositiveFloat
    original_positions: PositiveInt
    low_freq_factor: float
    high_freq_factor: float

    def frequencies(self, width: int, theta: float, positions_BT: Tensor) -> Tensor:
        plain_J = _plain(width, theta, positions_BT.device)
        turns_J = self.original_positions * plain_J / (2 * math.pi)
        kept_J = ((turns_J - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return plain_J / self.factor * (1 - kept_J) + plain_J * kept_J


class LongRope(Rope):
    """LongRoPE (arXiv:2402.13753) as Phi-3 has it: a divisor a pair, others as soon as a text is longer than
    `original_positions`."""

    kind: Literal["longrope"]
    factor: PositiveFloat
    """The whole length in original ones; the amplitude follows from it."""
    original_positions: PositiveInt
    short_factor: tuple[PositiveFloat, ...]
    long_factor: tuple[PositiveFloat, ...]
    attention_factor: float | None = None
    """Takes the place of that amplitude."""

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_positions)) if self.factor > 1 else 1.0

    def frequencies(self, width: int, theta: float, positions_BT: Tensor) -> Tensor:
        beyond = int(positions_BT.max()) >= self.original_positions
        divisors_J = torch.tensor(self.long_factor if beyond else self.short_factor, device=positions_BT.device)
        return _plain(width, theta, positions_BT.device, divisors_J)

    def fixed(self, tokens: int) -> bool:
        return tokens <= self.original_positions


RopeConfig = Annotated[
    PlainRope | LinearRope | DynamicRope | YarnRope | Llama3Rope | LongRope, Field(discriminator="kind")
]


def _plain(width: int, theta: float, device: torch.device, divisors_J: Tensor | float = 1.0) -> Tensor:
    # In transformers' order of operations: at 100 000 tokens the last digit of a frequency is a hundredth of a radian.
    return 1.0 / (divisors_J * theta ** (torch.arange(0, width, 2, device=device).float() / width))


def temperature(factor: float, mscale: float) -> float:
    """YaRN's equation 22, with DeepSeek-V2's multiplier of the logarithm."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
