"""From the tower's patch tokens to embeddings the language model reads: one small file a kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from vlm.projector.downsample import DownsampleConfig
from vlm.projector.mlp import MLPConfig
from vlm.projector.pixel_shuffle import PixelShuffleLinearConfig, PixelShuffleMLPConfig

__all__ = ["DownsampleConfig", "MLPConfig", "PixelShuffleLinearConfig", "PixelShuffleMLPConfig", "ProjectorConfig"]


def _kind(value: Any) -> str | None:
    """Cards that do not say are from before there were others."""
    return value.get("kind", "pixel_shuffle_mlp") if isinstance(value, dict) else getattr(value, "kind", None)


ProjectorConfig = Annotated[
    Annotated[PixelShuffleMLPConfig, Tag("pixel_shuffle_mlp")]
    | Annotated[PixelShuffleLinearConfig, Tag("pixel_shuffle_linear")]
    | Annotated[MLPConfig, Tag("mlp")]
    | Annotated[DownsampleConfig, Tag("downsample_mlp")],
    Discriminator(_kind),
]
"""Each says `tokens(grid)`, the visual tokens of a square grid of patches, and builds its module from both widths."""
