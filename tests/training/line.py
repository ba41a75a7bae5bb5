"""A task that trains in milliseconds: a line through points, with noise, a buffer and a bfloat16 parameter."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from vlm.training.recipe import Recipe
from vlm.training.stages import Stage
from vlm.training.task import Task


class LineTask(Task):
    def __init__(self, *, fail_at: int = -1, how: str = "raise", delay: float = 0.0):
        torch.manual_seed(7)
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.bias = nn.Parameter(torch.randn(3).bfloat16())
        self.seen = torch.zeros(3)
        self.fail_at, self.how, self.delay = fail_at, how, delay

    def trainable(self) -> dict[str, nn.Parameter]:
        return {"weight": self.weight, "bias": self.bias}

    def loss(self, step: int) -> Tensor:
        time.sleep(self.delay)
        x = torch.randn(8, 2) + step / 10
        loss = (x @ self.weight.T + self.bias.float() - x.sum(1, keepdim=True)).square().mean()
        if step == self.fail_at:
            if self.how == "raise":
                raise KeyboardInterrupt
            if self.how == "nan":
                return loss * float("nan")
            # Its value is finite, its gradient is not.
            return loss + (self.weight - self.weight.detach()).abs().sqrt().sum()
        return loss

    def after_step(self) -> None:
        self.seen += self.weight.detach().sum(1).sign()

    def validate(self) -> dict[str, float]:
        return {
            "line_loss": float((self.weight.detach() - 1).square().mean()),
            "score": float(self.weight.detach().sum()),
        }

    def buffers(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def export(self) -> dict[str, Tensor]:
        return {"weight": self.weight.detach(), "bias": self.bias.detach(), "seen": self.seen}


def recipe(**changes: object) -> Recipe:
    data = {
        "model": "tiny", "objective": {"kind": "words", "dataset": "none"}, "output": "run", "steps": 12, "batch": 1,
        "optimizer": {"lr": 0.05, "weight_decay": 0.1, "warmup": 3}, "save_every": 4, "validate_every": 6,
        "log_every": 3,
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def stage(**options: object) -> Stage:
    return Stage(LineTask(**options), {"earlier": torch.ones(2)})  # type: ignore[arg-type]
