"""Towers of torchvision: its ViTs.

torchvision publishes no folders. Ours has `model.safetensors` with torchvision's names and a `config.json` such as
`{"library": "torchvision", "architecture": "vit_b_16", "weights": "IMAGENET1K_V1"}`; what the preprocessing of these
weights is, torchvision says.

B images, N patches, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from vlm import config
from vlm.errors import BadInput, unknown
from vlm.files import read_json
from vlm.vision.tower import TowerConfig, TowerInput, TowerOutput, VisionTower, activation_name, unfit
from vlm.weights.exact import load_exactly


class Tower(VisionTower):
    """`pooled_BD` is the CLS token after the last norm."""

    def __init__(self, cfg: TowerConfig):
        super().__init__(cfg)
        self.vit = _create(cfg.name, {"image_size": cfg.image_size, **cfg.options})
        self.vit.heads = torch.nn.Identity()

    def found(self) -> tuple[int, int]:
        return self.vit.hidden_dim, self.vit.patch_size

    def activations(self) -> Iterator[Callable[[Tensor], Tensor]]:
        return _activations(self.vit)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """torchvision's names; a position table is resampled to `image_size`, the classifier left out."""
        kept = OrderedDict((key, value) for key, value in state.items() if not key.startswith("heads."))
        if "encoder.pos_embedding" in kept:
            kept = interpolate_embeddings(self.cfg.image_size, self.cfg.patch, kept)
        load_exactly(self.vit, kept, unfit(self.cfg.name))

    def forward(self, pixels: TowerInput) -> TowerOutput:
        assert isinstance(pixels, Tensor)  # `check` refuses a budget
        vit, encoder = self.vit, self.vit.encoder
        x_BND = vit.conv_proj(pixels).flatten(2).mT
        x_BND = torch.cat([vit.class_token.expand(len(x_BND), -1, -1), x_BND], dim=1) + encoder.pos_embedding
        states = [x_BND]
        for layer in encoder.layers:
            states.append(layer(states[-1]))
        last_BND = encoder.ln(states[-1])
        tokens_BND = last_BND if self.cfg.layer == -1 else states[self.cfg.layer]
        return TowerOutput(tokens_BND[:, 1:], last_BND[:, 0])


def read(folder: Path) -> TowerConfig:
    """The config of a folder as this file's head describes it."""
    where = folder / "config.json"
    content = read_json(where)
    name = str(content.get("architecture"))
    with torch.device("meta"):
        vit = _create(name, {})
    known = torchvision.models.get_model_weights(name).__members__
    if content.get("weights") not in known:
        raise unknown(f"{where}: weights of {name}", str(content.get("weights")), known)
    transforms = known[content["weights"]].transforms()
    return config.parse(
        TowerConfig,
        {
            "library": "torchvision",
            "name": name,
            "image_size": transforms.crop_size[0],
            "patch": vit.patch_size,
            "width": vit.hidden_dim,
            "activation": next(activation_name(function) for function in _activations(vit)),
            "mean": transforms.mean,
            "std": transforms.std,
            "interpolation": transforms.interpolation.value,
            "framing": {"resize": "shortest", "side": transforms.resize_size[0]},
        },
        str(where),
    )


def _create(name: str, options: Mapping[str, Any]) -> VisionTransformer:
    if name not in torchvision.models.list_models(module=torchvision.models) or not name.startswith("vit_"):
        raise BadInput(f"tower {name}: torchvision has no ViT of this name")
    return torchvision.models.get_model(name, weights=None, **options)


def _activations(vit: VisionTransformer) -> Iterator[Callable[[Tensor], Tensor]]:
    for layer in vit.encoder.layers:
        yield layer.mlp[1]
