"""Kinds of attention as data.

H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vlm.config import Config
from vlm.language.config.rotary import RopeConfig


class Decoder(Protocol):
    """What attention asks of the language model around it, a `LanguageConfig`."""

    @property
    def kv_heads(self) -> int: ...

    @property
    def head_width(self) -> int: ...

    @property
    def rope(self) -> RopeConfig: ...


class GroupedQueryConfig(Config):
    """Grouped-query attention (arXiv:2305.13245) and what families add to it."""

    kind: Literal["gqa"] = "gqa"
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: Literal["head", "all"] | None = None
    """RMSNorm of queries and keys before the rotation: of each head (Qwen3), or of all heads as one vector (OLMoE)."""
    clip: PositiveFloat | None = None
    """Queries, keys and values are clamped to this magnitude (OLMoE)."""

    def rotary_width(self, cfg: Decoder) -> int:
        return int(cfg.head_width * cfg.rope.share)

    def cached(self, cfg: Decoder) -> tuple[tuple[int, int], ...]:
        """Heads and width of each tensor a layer keeps of a token: keys and values."""
        return ((cfg.kv_heads, cfg.head_width), (cfg.kv_heads, cfg.head_width))


class IndexerConfig(Config):
    """DeepSeek sparse attention: a small indexer chooses the tokens attended to (V3.2-Exp report, section 2.1)."""

    heads: PositiveInt
    head_width: PositiveInt
    top_k: PositiveInt
    """Tokens a query attends to."""


class LatentConfig(Config):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    The language model's `head_width` is a query's: `rope_width` rotated numbers and the rest without a position.
    """

    kind: Literal["mla"]
    kv_rank: PositiveInt
    """Width of the latent vector that keys and values are made of."""
    rope_width: PositiveInt
    value_width: PositiveInt
    q_rank: PositiveInt | None = None
    """Width of the queries' latent vector; `None` makes them of the input itself."""
    bias: bool = False
    """On the two projections down and on the output."""
    latent_norm_eps: float = 1e-6
    indexer: IndexerConfig | None = None

    @model_validator(mode="after")
    def _indexer_fits(self) -> LatentConfig:
        if self.indexer is not None and self.q_rank is None:
            raise ValueError("the indexer reads the queries' latent vector, so it needs a q_rank")
        if self.indexer is not None and self.indexer.head_width < self.rope_width:
            raise ValueError(f"indexer head_width {self.indexer.head_width} is less than rope_width {self.rope_width}")
        return self

    def rotary_width(self, cfg: Decoder) -> int:
        return self.rope_width

    def cached(self, cfg: Decoder) -> tuple[tuple[int, int], ...]:
        """Heads and width of each tensor a layer keeps of a token: the latent beside the one rotated key, and the
        indexer's key."""
        kept = ((1, self.kv_rank + self.rope_width),)
        return kept if self.indexer is None else (*kept, (1, self.indexer.head_width))


AttentionConfig = Annotated[GroupedQueryConfig | LatentConfig, Field(discriminator="kind")]
