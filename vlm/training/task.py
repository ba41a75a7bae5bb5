"""What every stage gives the loop: its parameters, a loss a step, figures, and what to ship."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

Log = Callable[[str], None]
"""Called with a line of progress."""
Say = Log
"""Kept name."""
Figures = dict[str, float | list[float]]
"""By name; a list has a number a layer."""


class Task(ABC):
    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters this stage trains, by name; everything else is frozen."""

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """The loss of 0-based `step`; the batch is a function of the step and the recipe's seed alone."""

    def backward(self, step: int) -> Tensor:
        """Add the gradients of the step's loss to the parameters; returns the loss."""
        loss = self.loss(step)
        loss.backward()
        return loss.detach()

    def after_step(self) -> None:
        """Called after the optimizer's step."""
        return

    def figures(self) -> Figures:
        """Figures of the last step, beside its loss."""
        return {}

    @abstractmethod
    def validate(self) -> Figures:
        """Figures on the validation split."""

    def buffers(self) -> dict[str, Tensor]:
        """What changes without a gradient and is exported too."""
        return {}

    @abstractmethod
    def export(self) -> dict[str, Tensor]:
        """The trained weights, by the names a checkpoint has."""

    def finish(self, run: Path) -> None:
        """Called at the end: leaves in the run's folder what only this stage makes."""
        return
