"""The language model's architecture as data.

B batch, T tokens, S cached tokens, D model width, H query heads, G key-value heads, K head width, F feed-forward
width, E routed experts, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vlm.config import Config
from vlm.language.rotary import LongRope, PlainRope, RopeConfig

if TYPE_CHECKING:
    from vlm.language.attention import GroupedQueryAttention
    from vlm.language.decoder import LanguageModel
    from vlm.language.latent_attention import LatentAttention


class GroupedQueryConfig(Config):
    """Grouped-query attention (arXiv:2305.13245) and what families add to it."""

    kind: Literal["gqa"] = "gqa"
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: Literal["head", "all"] | None = None
    """RMSNorm of queries and keys before the rotation: of each head (Qwen3), or of all heads as one vector (OLMoE)."""
    clip: PositiveFloat | None = None
    """Queries, keys and values are clamped to this magnitude (OLMoE)."""

    def rotary_width(self, cfg: LanguageConfig) -> int:
        return int(cfg.head_width * cfg.rope.share)

    def cached(self, cfg: LanguageConfig) -> tuple[tuple[int, int], ...]:
        """Heads and width of each tensor a layer keeps of a token: keys and values."""
        return ((cfg.kv_heads, cfg.head_width), (cfg.kv_heads, cfg.head_width))

    def build(self, cfg: LanguageConfig, layer: int) -> GroupedQueryAttention:
        from vlm.language.attention import GroupedQueryAttention

        return GroupedQueryAttention(cfg, layer)


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

    def rotary_width(self, cfg: LanguageConfig) -> int:
        return self.rope_width

    def cached(self, cfg: LanguageConfig) -> tuple[tuple[int, int], ...]:
        """Heads and width of each tensor a layer keeps of a token: the latent beside the one rotated key, and the
        indexer's key."""
        kept = ((1, self.kv_rank + self.rope_width),)
        return kept if self.indexer is None else (*kept, (1, self.indexer.head_width))

    def build(self, cfg: LanguageConfig, layer: int) -> LatentAttention:
        from vlm.language.latent_attention import LatentAttention

        return LatentAttention(cfg, layer)


AttentionConfig = Annotated[GroupedQueryConfig | LatentConfig, Field(discriminator="kind")]


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

    def is_mixture(self, layer: int) -> bool:
        if self.layers is not None:
            return layer in self.layers
        return layer >= self.first_dense and (layer - self.first_dense) % self.every == 0


class LanguageConfig(Config):
    """A pre-norm decoder: attention, rotary positions, RMSNorm, SwiGLU, dense or mixture layers."""

    vocab_size: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_width: PositiveInt
    ffn_width: PositiveInt
    max_positions: PositiveInt
    rope_theta: float = 10_000.0
    rope: RopeConfig = PlainRope()
    attention: AttentionConfig = GroupedQueryConfig()
    window: PositiveInt | None = None
    """A token of a windowed layer sees itself and the `window - 1` tokens before it."""
    window_layers: tuple[NonNegativeInt, ...] | None = None
    """The windowed layers by number; all where it is `None`."""
    ffn_bias: bool = False
    """On the feed-forward of dense layers and on shared experts."""
    head_bias: bool = False
    """On the logits."""
    norm_eps: float = 1e-5
    tied_embeddings: bool = True
    moe: MoEConfig | None = None
    multi_token: NonNegativeInt = 0
    """Heads that look further ahead than the next token (DeepSeek-V3, arXiv:2412.19437, section 2.2); each has a layer
    of its own, numbered on from the last, a mixture where the model has any."""

    @model_validator(mode="after")
    def _fits(self) -> LanguageConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if isinstance(self.attention, LatentConfig):
            if self.kv_heads != self.heads:
                raise ValueError(f"latent attention needs kv_heads = heads, got {self.kv_heads} and {self.heads}")
            if self.attention.rope_width >= self.head_width:
                raise ValueError(
                    f"rope_width {self.attention.rope_width} leaves nothing of head_width {self.head_width}"
                )
            if self.attention.indexer is not None and self.window is not None:
                raise ValueError(f"an indexer chooses among all tokens before; got a window of {self.window} too")
        if (rotated := self.attention.rotary_width(self)) % 2 or rotated == 0:
            raise ValueError(f"rotary positions need pairs, got a rotated width of {rotated}")
        if isinstance(self.rope, LongRope):
            for name in ("short_factor", "long_factor"):
                if (count := len(getattr(self.rope, name))) != rotated // 2:
                    raise ValueError(
                        f"{name} has {count} numbers, expected one for each of {rotated // 2} rotated pairs"
                    )
        return self

    def is_mixture(self, layer: int) -> bool:
        return self.moe is not None and (layer >= self.layers or self.moe.is_mixture(layer))

    def window_of(self, layer: int) -> int | None:
        """The window of this layer, `None` where it sees everything before it."""
        return self.window if self.window_layers is None or layer in self.window_layers else None

    @property
    def context(self) -> int:
        """Tokens the model reads."""
        return self.rope.context(self.max_positions)

    def shared_width(self) -> int:
        """Hidden width of a mixture layer's shared expert, 0 where there is none."""
        if self.moe is None:
            return 0
        return self.ffn_width if self.moe.shared_width is None else self.moe.shared_width

    def build(self) -> LanguageModel:
        from vlm.language.decoder import LanguageModel

        return LanguageModel(self)
