"""What every stage gives the loop: its parameters, a loss a step, figures, and what to ship."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

Say = Callable[[str], None]
"""Told of progress in words."""


class Task(Protocol):
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters this stage trains, by name; everything else is frozen."""
        ...

    def loss(self, step: int) -> Tensor:
        """The loss of 0-based `step`; the batch is a function of the step and the recipe's seed alone."""
        ...

    def after_step(self) -> None:
        """Called after the optimizer's step."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on the validation split."""
        ...

    def buffers(self) -> dict[str, Tensor]:
        """What changes without a gradient and is exported too."""
        ...

    def export(self) -> dict[str, Tensor]:
        """The trained weights, by the names a checkpoint has."""
        ...
