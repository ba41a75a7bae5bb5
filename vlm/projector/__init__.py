"""From the tower's patch tokens to embeddings the language model reads: one small file a kind."""

from __future__ import annotations

from typing import Annotated

from vlm.projector.base import Projector
from vlm.projector.downsample import DownsampleConfig
from vlm.projector.mlp import MLPConfig
from vlm.projector.perceiver import PerceiverConfig
from vlm.projector.pixel_shuffle import PixelShuffleLinearConfig, PixelShuffleMLPConfig
from vlm.projector.q_former import QFormerConfig
from vlm.registry import Chosen, Registry

__all__ = [
    "PROJECTORS", "DownsampleConfig", "MLPConfig", "PerceiverConfig", "PixelShuffleLinearConfig",
    "PixelShuffleMLPConfig", "Projector", "ProjectorConfig", "QFormerConfig",
]  # fmt: skip

PROJECTORS: Registry[type[Projector]] = Registry(
    "projector",
    {
        "pixel_shuffle_mlp": "vlm.projector.pixel_shuffle:PixelShuffleMLPConfig",
        "pixel_shuffle_linear": "vlm.projector.pixel_shuffle:PixelShuffleLinearConfig",
        "mlp": "vlm.projector.mlp:MLPConfig",
        "downsample_mlp": "vlm.projector.downsample:DownsampleConfig",
        "perceiver": "vlm.projector.perceiver:PerceiverConfig",
        "q_former": "vlm.projector.q_former:QFormerConfig",
    },
)

ProjectorConfig = Annotated[Projector, Chosen(PROJECTORS, default="pixel_shuffle_mlp")]
"""Cards that do not say their projector's kind are from before there were others."""
