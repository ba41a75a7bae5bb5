"""SigLIP's tower (arXiv:2303.15343) by its sizes, for checkpoints that carry their own: timm's ViT without a head.

B images, C channels, N patches, D width.
"""

from __future__ import annotations

from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from vlm.config import Config
from vlm.errors import BadInput


class SigLIPConfig(Config):
    """No CLS token, learned positions, LayerNorm with an epsilon of 1e-6, tanh GELU."""

    image_size: PositiveInt = 384
    patch: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    mlp_width: PositiveInt
    final_norm: bool = True
    """Whether the last layer's states are normalised; LLaVA's language models see them as they are."""

    @model_validator(mode="after")
    def _fits(self) -> SigLIPConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.patch > self.image_size:
            raise ValueError(f"patch {self.patch} is larger than image_size {self.image_size}")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side; rows and columns of pixels that fill no patch are not looked at."""
        return self.image_size // self.patch

    def build(self) -> SigLIPTower:
        return SigLIPTower(self)


class SigLIPTower(nn.Module):
    def __init__(self, cfg: SigLIPConfig):
        from timm.layers import GELUTanh
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        self.cfg = cfg
        self.vit = VisionTransformer(
            img_size=cfg.image_size,
            patch_size=cfg.patch,
            embed_dim=cfg.width,
            depth=cfg.layers,
            num_heads=cfg.heads,
            mlp_ratio=(cfg.mlp_width + 0.5) / cfg.width,  # timm rounds width * ratio down
            act_layer=GELUTanh,
            class_token=False,
            global_pool="",
            final_norm=cfg.final_norm,
            num_classes=0,
        )

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Patch tokens `[B, N, D]` after the last norm, where there is one, row by row.

        Raises `BadInput` for pictures of another size.
        """
        size = self.cfg.image_size
        if tuple(pixels_BCHW.shape[1:]) != (3, size, size):
            raise BadInput(f"pixels: expected [tiles, 3, {size}, {size}], got {list(pixels_BCHW.shape)}")
        return self.vit.forward_features(pixels_BCHW)
