"""The attention of a layer, by the kind its config names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.language.attention.grouped import GroupedQueryAttention
from vlm.language.attention.latent import LatentAttention
from vlm.language.config.attention import LatentConfig

if TYPE_CHECKING:
    from vlm.language.config import LanguageConfig


def build_attention(cfg: LanguageConfig, layer: int) -> GroupedQueryAttention | LatentAttention:
    return LatentAttention(cfg, layer) if isinstance(cfg.attention, LatentConfig) else GroupedQueryAttention(cfg, layer)
