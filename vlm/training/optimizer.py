"""AdamW over float32 master copies, so that the weights themselves may be bfloat16."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vlm.training.recipe import OptimizerConfig


class MasterAdamW:
    """Float32 copies of `parameters` take the steps; the parameters receive them rounded to their own type."""

    def __init__(self, cfg: OptimizerConfig, parameters: dict[str, nn.Parameter], steps: int):
        self.cfg, self.steps, self.parameters = cfg, steps, parameters
        self.master = {name: p.detach().clone().float() for name, p in parameters.items()}
        groups = []
        for name, copy in self.master.items():
            matches = [prefix for prefix in cfg.lr_of if name.startswith(prefix)]
            lr = cfg.lr_of[max(matches, key=len)] if matches else cfg.lr
            # Norms, biases and temperatures are not decayed.
            groups.append({"params": [copy], "lr": lr, "weight_decay": cfg.weight_decay if copy.ndim > 1 else 0.0})
        self._adam = torch.optim.AdamW(groups, betas=cfg.betas, fused=True)
        self._peaks = [group["lr"] for group in self._adam.param_groups]

    def rate(self, step: int) -> float:
        """The schedule's factor for 0-based `step`."""
        if step < self.cfg.warmup:
            return (step + 1) / self.cfg.warmup
        progress = (step - self.cfg.warmup) / max(1, self.steps - self.cfg.warmup)
        return 0.5 * (1 + math.cos(math.pi * progress))

    def step(self, step: int) -> float:
        """Take one step from the parameters' gradients; returns the gradient's norm before clipping."""
        for group, peak in zip(self._adam.param_groups, self._peaks, strict=True):
            group["lr"] = peak * self.rate(step)
        for name, parameter in self.parameters.items():
            gradient = parameter.grad
            self.master[name].grad = torch.zeros_like(self.master[name]) if gradient is None else gradient.float()
            parameter.grad = None
        norm = nn.utils.clip_grad_norm_(list(self.master.values()), self.cfg.clip)
        self._adam.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.master[name])
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as named tensors."""
        state = {}
        for name, copy in self.master.items():
            state[f"{name}/master"] = copy
            for key, value in self._adam.state[copy].items():
                state[f"{name}/{key}"] = value
        return state

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        names = {key.rpartition("/")[0] for key in state}
        if names != set(self.master):
            differing = sorted(names ^ set(self.master))[:3]
            raise ValueError(f"checkpoint and recipe train different parameters, such as {differing}")
        for name, copy in self.master.items():
            copy.copy_(state[f"{name}/master"])
            self.parameters[name].copy_(copy)
            keys = [key for key in state if key.rpartition("/")[0] == name and not key.endswith("/master")]
            self._adam.state[copy] = {key.rpartition("/")[2]: state[key].clone() for key in keys}
