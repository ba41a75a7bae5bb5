"""From the tower's patch tokens to embeddings the language model reads: one small file a kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from vlm.projector.downsample import DownsampleConfig
from vlm.projector.mlp import MLPConfig
from vlm.projector.perceiver import PerceiverConfig
from vlm.projector.pixel_shuffle import PixelShuffleLinearConfig, PixelShuffleMLPConfig
from vlm.projector.q_former import QFormerConfig

__all__ = [
    "DownsampleConfig", "MLPConfig", "PerceiverConfig", "PixelShuffleLinearConfig", "PixelShuffleMLPConfig",
    "ProjectorConfig", "QFormerConfig",
]  # fmt: skip


def _kind(value: Any) -> str | None:
    """Cards that do not say are from before there were others."""
    return value.get("kind", "pixel_shuffle_mlp") if isinstance(value, dict) else getattr(value, "kind", None)


ProjectorConfig = Annotated[
    Annotated[PixelShuffleMLPConfig, Tag("pixel_shuffle_mlp")]
    | Annotated[PixelShuffleLinearConfig, Tag("pixel_shuffle_linear")]
    | Annotated[MLPConfig, Tag("mlp")]
    | Annotated[DownsampleConfig, Tag("downsample_mlp")]
    | Annotated[PerceiverConfig, Tag("perceiver")]
    | Annotated[QFormerConfig, Tag("q_former")],
    Discriminator(_kind),
]
"""Each says `tokens(grid)`, the visual tokens of a square grid of patches, and builds its module from both widths."""
