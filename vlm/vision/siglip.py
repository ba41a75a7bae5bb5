"""SigLIP's tower (arXiv:2303.15343) by its sizes, for checkpoints that carry their own: timm's ViT without a head.

B images, C channels, N patches, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from vlm.config import Config
from vlm.errors import BadInput
from vlm.vision.tower import TowerInput, TowerOutput, VisionTower
from vlm.vision.transforms import SQUASH, Framing, Interpolation

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


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
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: Interpolation = "bicubic"
    framing: Framing = SQUASH
    """How a picture becomes a square where it is seen as a whole, for vectors."""
    budget: Literal[None] = None
    """Its pictures are squares."""

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

    def build(self, place_N: Tensor | None = None) -> SigLIPTower:
        return SigLIPTower(self, place_N)


class SigLIPTower(VisionTower):
    def __init__(self, cfg: SigLIPConfig, place_N: Tensor | None = None):
        """`place_N` says which learned position each patch gets, by default its own."""
        torch.nn.Module.__init__(self)
        self.cfg: Any = cfg
        self.vit = _vit(cfg, place_N)

    def forward(self, pixels: TowerInput) -> TowerOutput:
        """Patch tokens after the last norm, where there is one, row by row; pooled is their mean.

        Raises `BadInput` for pictures of another size.
        """
        size = self.cfg.image_size
        if not isinstance(pixels, Tensor) or tuple(pixels.shape[1:]) != (3, size, size):
            got = list(pixels.shape) if isinstance(pixels, Tensor) else "patches"
            raise BadInput(f"pixels: expected [tiles, 3, {size}, {size}], got {got}")
        tokens_BND = self.vit.forward_features(pixels)
        return TowerOutput(tokens_BND, tokens_BND.mean(dim=1))


def _vit(cfg: SigLIPConfig, place_N: Tensor | None) -> VisionTransformer:
    from timm.layers import GELUTanh
    from timm.models.vision_transformer import VisionTransformer

    class PlacedTransformer(VisionTransformer):
        """Idefics3 looks positions up by a patch's place as a share of the side, which may be a neighbour's."""

        def _pos_embed(self, x: Tensor) -> Tensor:
            assert self.pos_embed is not None
            places_N = None if place_N is None else place_N.to(self.pos_embed.device)
            return self.pos_drop(x + (self.pos_embed if places_N is None else self.pos_embed[:, places_N]))

    return PlacedTransformer(
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
