"""A mixture of experts as data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from vlm.config import Config


class AdaptiveConfig(Config):
    """A token calls its best experts until their scores hold a share `p` of all (top-p, arXiv:2403.07652, section 3.2).

    At least one and at most `top_k` experts a token. With normalised gates a token of one expert teaches the router
    nothing, so the paper leaves them as they are (`normalise: false`).
    """

    p: float = Field(default=0.5, gt=0, le=1)
    """The share; with a budget, where training begins to look for it."""
    budget: float | None = Field(default=None, ge=1)
    """Experts a token in the mean: training moves `p` so that they come out at this."""
    rate: float = Field(default=0.1, gt=0, le=1)
    """The part of the way to the last batch's best `p` that a step goes."""


class MoEConfig(Config):
    """Fine-grained routed experts beside a shared one (DeepSeekMoE, arXiv:2401.06066, section 3)."""

    experts: PositiveInt
    top_k: PositiveInt
    width: PositiveInt
    """Hidden width of one routed expert."""
    shared_width: NonNegativeInt | None = None
    """Hidden width of the shared expert: 0 for none, `None` for the width of a dense layer's feed-forward."""
    shared_gate: bool = False
    """The shared expert's output is weighted by a sigmoid of its own (Qwen2-MoE)."""
    first_dense: NonNegativeInt = 0
    """Layers below this index stay dense."""
    every: PositiveInt = 1
    """From `first_dense` on, every so many layers is a mixture."""
    layers: tuple[NonNegativeInt, ...] | None = None
    """The mixture layers by number, in place of `first_dense` and `every`."""
    start: Literal["zero", "copy", "split"] = "zero"
    """How a dense decoder becomes this mixture (`language/upcycle.py`): with experts that add nothing yet, with copies
    of its feed-forward, or with slices of it."""
    scoring: Literal["sigmoid", "softmax"] = "sigmoid"
    normalise: bool = True
    """The gates of a token sum to one (before `scale`)."""
    scale: float = 1.0
    """Factor on the gates (`routed_scaling_factor`)."""
    groups: PositiveInt = 1
    groups_kept: PositiveInt = 1
    """Experts are chosen out of this many of the `groups` (DeepSeek-V2, section 2.2.2)."""
    group_score: Literal["max", "top2"] = "top2"
    """A group counts as much as its best expert (DeepSeek-V2), or as its best two together (DeepSeek-V3)."""
    balanced: bool = True
    """Experts are chosen by score + bias, and the bias is moved against the load."""
    bias_update_rate: float = 1e-3
    """Gamma of the loss-free balancing rule (arXiv:2408.15664, algorithm 1)."""
    sequence_balance: NonNegativeFloat = 0.0
    """Weight of the sequence-wise balance loss (arXiv:2412.19437, equation 17; DeepSeek-V3 has 0.0001)."""
    batch_balance: NonNegativeFloat = 0.0
    """Weight of the batch-wise balance loss (Switch, arXiv:2101.03961, equation 4, which has 0.01)."""
    z_loss: NonNegativeFloat = 0.0
    """Weight of the router z-loss (ST-MoE, arXiv:2202.08906, equation 5, which has 0.001)."""
    adaptive: AdaptiveConfig | None = None
    """Tokens call as many experts as they need, `top_k` at most; `None` is `top_k` for every token."""

    @model_validator(mode="after")
    def _choice_is_possible(self) -> MoEConfig:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts")
        if self.experts % self.groups:
            raise ValueError(f"experts {self.experts} is not a multiple of groups {self.groups}")
        if self.groups_kept > self.groups:
            raise ValueError(f"groups_kept {self.groups_kept} is more than the {self.groups} groups")
        if self.top_k > (reachable := self.experts // self.groups * self.groups_kept):
            raise ValueError(f"top_k {self.top_k} is more than the {reachable} experts of {self.groups_kept} groups")
        if self.groups > 1 and self.group_score == "top2" and self.experts // self.groups < 2:
            raise ValueError(f"group_score top2 needs groups of two experts, got {self.experts} in {self.groups}")
        if self.shared_gate and self.shared_width == 0:
            raise ValueError("shared_gate needs a shared expert, got shared_width 0")
        if self.adaptive is not None and (self.adaptive.budget or 1) > self.top_k:
            raise ValueError(f"a budget of {self.adaptive.budget} experts a token is more than top_k {self.top_k}")
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_start(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A vector's space is named by this JSON, and was before there was a choice."""
        return {key: value for key, value in handler(self).items() if key != "start" or self.start != "zero"}

    def is_mixture(self, layer: int) -> bool:
        if self.layers is not None:
            return layer in self.layers
        return layer >= self.first_dense and (layer - self.first_dense) % self.every == 0
