"""The language model's architecture as data.

B batch, T tokens, S cached tokens, D model width, H query heads, G key-value heads, K head width, F feed-forward
width, E routed experts, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveInt, model_validator

from vlm.config import Config

if TYPE_CHECKING:
    from vlm.language.decoder import LanguageModel


class MoEConfig(Config):
    """Fine-grained routed experts beside a shared one (DeepSeekMoE, arXiv:2401.06066, section 3)."""

    experts: PositiveInt
    top_k: PositiveInt
    width: PositiveInt
    """Hidden width of one routed expert."""
    first_dense: int = 0
    """Layers below this index stay dense."""
    every: PositiveInt = 1
    """From `first_dense` on, every so many layers is a mixture."""
    bias_update_rate: float = 1e-3
    """Gamma of the loss-free balancing rule (arXiv:2408.15664, algorithm 1)."""

    @model_validator(mode="after")
    def _top_k_fits(self) -> MoEConfig:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts")
        return self

    def is_mixture(self, layer: int) -> bool:
        return layer >= self.first_dense and (layer - self.first_dense) % self.every == 0


class LanguageConfig(Config):
    """A pre-norm decoder: grouped-query attention, rotary positions, RMSNorm, SwiGLU, dense or mixture layers."""

    vocab_size: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_width: PositiveInt
    ffn_width: PositiveInt
    max_positions: PositiveInt
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied_embeddings: bool = True
    moe: MoEConfig | None = None

    @model_validator(mode="after")
    def _heads_divide(self) -> LanguageConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self

    def build(self) -> LanguageModel:
        from vlm.language.decoder import LanguageModel

        return LanguageModel(self)
