"""Towers of timm: plain ViTs (DINOv2, SigLIP, CLIP), EVA and DINOv3, NaFlex ViTs, and ConvNeXt's features as a grid.

B images, N patches, D width.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models.naflexvit import NaFlexVit
from torch import Tensor

from vlm import config
from vlm.errors import BadInput
from vlm.files import read_json
from vlm.vision.native_resolution import Patches
from vlm.vision.tower import TowerConfig, TowerInput, TowerOutput, VisionTower, activation_name, unfit
from vlm.weights.exact import load_exactly

RESIZE = {"center": "shortest", "squash": "squash", "border": "longest"}
"""timm's crop modes -> `Framing.resize`."""


class Tower(VisionTower):
    """`pooled_BD` is timm's `forward_head(..., pre_logits=True)`: the CLS token, a mean, or an attention pool."""

    def __init__(self, cfg: TowerConfig):
        super().__init__(cfg)
        self.vit = _create(cfg.name, cfg.image_size, cfg.options)
        self.native = isinstance(self.vit, NaFlexVit)

    def found(self) -> tuple[int, int]:
        return width_and_patch(self.vit)

    def activations(self) -> Iterator[Callable[[Tensor], Tensor]]:
        return activations(self.vit)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """timm's names, also older ones; a position table is resampled to `image_size`, the classifier left out."""
        convert = getattr(sys.modules[type(self.vit).__module__], "checkpoint_filter_fn", lambda state, model: state)
        classifier = f"{self.vit.pretrained_cfg['classifier']}."
        state = {key: value for key, value in convert(dict(state), self.vit).items() if not key.startswith(classifier)}
        load_exactly(self.vit, state, unfit(self.cfg.name))

    def forward(self, pixels: TowerInput) -> TowerOutput:
        return run(self.vit, pixels, self.cfg.layer)


def run(vit: Any, pixels: TowerInput, layer: int) -> TowerOutput:
    """Tokens and the pooled vector of any model of timm that has a grid."""
    x, places = pixels, {}
    if isinstance(pixels, Patches):
        x, places = pixels.patches_BNP, {"patch_coord": pixels.coordinates_BN2, "patch_valid": pixels.valid_BN}
    blocks = []
    if layer == -1:
        features = vit.forward_features(x, **places)
    else:
        features, blocks = vit.forward_intermediates(x, [layer], output_fmt="NLC" if places else "NCHW", **places)
    if isinstance(features, dict):
        features = features["patches"]
    valid = {"patch_valid": places["patch_valid"]} if places else {}
    pooled_BD = vit.forward_head(features, pre_logits=True, **valid)
    tokens = blocks[0] if blocks else features
    if tokens.ndim == 4:
        return TowerOutput(tokens.flatten(2).mT, pooled_BD)
    return TowerOutput(tokens if blocks else tokens[:, vit.num_prefix_tokens :], pooled_BD)


def activations(vit: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """Of every MLP, gated or not, also those of an attention pool."""
    for module in vit.modules():
        if hasattr(module, "act") and hasattr(module, "fc2"):
            yield module.act


def width_and_patch(vit: Any) -> tuple[int, int]:
    return vit.num_features, vit.feature_info[-1]["reduction"]


def read(folder: Path) -> TowerConfig:
    """The config of a folder as timm's `save_for_hf` writes it and as timm's repos on the hub are."""
    where = folder / "config.json"
    content = read_json(where)
    name, options, published = content["architecture"], content.get("model_args") or {}, content["pretrained_cfg"]
    if not isinstance(name, str) or not isinstance(options, dict) or not isinstance(published, dict):
        raise BadInput(f"{where}: expected timm's keys architecture, model_args and pretrained_cfg")
    data = resolve_data_config(pretrained_cfg=published)
    height, width = data["input_size"][1:]
    if height != width:
        raise BadInput(f"{where}: expected a square input, got {height}x{width}")
    options = {key: value for key, value in options.items() if key not in ("img_size", "num_classes")}
    with torch.device("meta"):
        vit = _create(name, height, options)
    channels, patch = width_and_patch(vit)
    return config.parse(
        TowerConfig,
        {
            "library": "timm",
            "name": name,
            "image_size": height,
            "patch": patch,
            "width": channels,
            "activation": next((activation_name(function) for function in activations(vit)), None),
            "mean": data["mean"],
            "std": data["std"],
            "interpolation": data["interpolation"],
            "framing": {
                "resize": RESIZE.get(data["crop_mode"], data["crop_mode"]),
                "side": math.floor(height / data["crop_pct"]),
                "fill": [round(255 * value) for value in data["mean"]] if data["crop_mode"] == "border" else (0, 0, 0),
            },
            "budget": (height // patch) ** 2 if isinstance(vit, NaFlexVit) else None,
            "options": options,
        },
        str(where),
    )


def _create(name: str, image_size: int, options: Mapping[str, Any]) -> Any:
    if not timm.is_model(name):
        raise BadInput(f"tower {name}: timm has no model of this name")
    published = timm.get_pretrained_cfg(name)
    size = {"img_size": image_size} if published is not None and published.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **{**size, **options})
    except TypeError as error:  # an option that it does not have
        raise BadInput(f"tower {name}: key options: {error}") from None
