"""The language model's architecture as data."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt, model_validator

from vlm.config import Config
from vlm.language.config.attention import AttentionConfig, GroupedQueryConfig, LatentConfig
from vlm.language.config.mixture import MoEConfig
from vlm.language.config.rotary import LongRope, PlainRope, RopeConfig


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
