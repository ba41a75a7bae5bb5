"""The vision tower: pixels in, patch tokens and one pooled vector out.

B images, N patches, D width, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import timm
from PIL import Image
from pydantic import PositiveInt
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from vlm.config import Config
from vlm.errors import BadInput
from vlm.vision.transforms import to_pixels

ACTIVATIONS = {"gelu": nn.GELU, "quick_gelu": timm.layers.QuickGELU, "gelu_tanh": timm.layers.GELUTanh}


class TowerConfig(Config):
    """A ViT of timm. The activation is stated, because checkpoints with the wrong one load without complaint."""

    library: Literal["timm"]
    name: str
    image_size: PositiveInt
    patch: PositiveInt
    width: PositiveInt
    activation: Literal["gelu", "quick_gelu", "gelu_tanh"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch

    def build(self) -> VisionTower:
        return VisionTower(self)


class TowerOutput(NamedTuple):
    tokens_BND: Tensor
    """Patch tokens of the last layer, normalised, row by row; CLS and register tokens are dropped."""
    pooled_BD: Tensor
    """The CLS token of the last layer, normalised."""


class VisionTower(nn.Module):
    def __init__(self, cfg: TowerConfig):
        super().__init__()
        self.cfg = cfg
        if not timm.is_model(cfg.name):
            raise BadInput(f"tower {cfg.name}: timm has no model of this name")
        vit = timm.create_model(
            cfg.name, img_size=cfg.image_size, num_classes=0, pretrained=False, act_layer=ACTIVATIONS[cfg.activation]
        )
        if not isinstance(vit, VisionTransformer) or not vit.has_class_token:
            raise BadInput(f"tower {cfg.name}: expected a ViT with a CLS token, which the pooled vector is read from")
        self.vit = vit
        if self.vit.embed_dim != cfg.width or self.vit.patch_embed.patch_size != (cfg.patch, cfg.patch):
            found = f"width {self.vit.embed_dim}, patch {self.vit.patch_embed.patch_size[0]}"
            raise BadInput(f"tower {cfg.name}: expected width {cfg.width}, patch {cfg.patch}; timm has {found}")

    def load_published(self, state: dict[str, Tensor]) -> None:
        """Load timm's names; the position table is resampled to `image_size`. Every key must match."""
        self.vit.load_state_dict(checkpoint_filter_fn(dict(state), self.vit))

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures as `[B, 3, H, W]` float32."""
        return to_pixels(images, self.cfg.image_size, self.cfg.mean, self.cfg.std, self.cfg.interpolation)

    def forward(self, pixels_BCHW: Tensor) -> TowerOutput:
        x_BTD = self.vit.forward_features(pixels_BCHW)
        return TowerOutput(x_BTD[:, self.vit.num_prefix_tokens :], x_BTD[:, 0])
