"""Towers of transformers: CLIP, SigLIP, SigLIP 2 (also at native aspect ratios), DINOv2 and DINOv3.

B images, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.utils import logging

from vlm import config
from vlm.errors import BadInput, unknown
from vlm.vision.native_resolution import Patches
from vlm.vision.processor_files import read_processor
from vlm.vision.tower import TowerConfig, TowerInput, TowerOutput, VisionTower, unfit
from vlm.weights.exact import refuse

PREFIXES: dict[str, Callable[[Any], int]] = {
    "clip_vision_model": lambda cfg: 1,
    "siglip_vision_model": lambda cfg: 0,
    "siglip2_vision_model": lambda cfg: 0,
    "dinov2": lambda cfg: 1,
    "dinov2_with_registers": lambda cfg: 1 + cfg.num_register_tokens,
    "dinov3_vit": lambda cfg: 1 + cfg.num_register_tokens,
}
"""Model types -> how many tokens, CLS and registers, stand before the patches."""
ASKED_TO_RESAMPLE = ("clip_vision_model", "siglip_vision_model")
"""Those that resample their position table only when told."""
TEXT_SIDE = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")
ACTIVATION_NAMES = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "swish": "silu"}
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which processors keep."""
NOISE = ("transformers_version", "model_type", "architectures", "dtype", "torch_dtype")


class Tower(VisionTower):
    """Tokens are `last_hidden_state`, which CLIP does not normalise; `pooled_BD` is `pooler_output`.

    A checkpoint without a pooling head pools the mean of the patches.
    """

    def __init__(self, cfg: TowerConfig):
        super().__init__(cfg)
        if cfg.name not in PREFIXES:
            raise unknown("vision model type of transformers", cfg.name, PREFIXES)
        self.vit: Any = AutoModel.from_config(AutoConfig.for_model(cfg.name, **cfg.options))
        self.native = cfg.name == "siglip2_vision_model"
        self.square = not self.native
        self.prefix = PREFIXES[cfg.name](self.vit.config)
        resample = cfg.name in ASKED_TO_RESAMPLE and self.vit.config.image_size != cfg.image_size
        self.extra = {"interpolate_pos_encoding": True} if resample else {}

    def found(self) -> tuple[int, int]:
        return self.vit.config.hidden_size, self.vit.config.patch_size

    def activations(self) -> Iterator[Callable[[Tensor], Tensor]]:
        for module in self.vit.modules():
            for name in ("activation_fn", "act_fn"):
                if callable(function := getattr(module, name, None)):
                    yield function
        if getattr(self.vit.config, "use_swiglu_ffn", False):  # a function inside its forward
            yield F.silu

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """transformers' names, also of a checkpoint with a text side, which is left out."""
        if any(key.startswith("vision_model.") for key in state):
            state = {key: value for key, value in state.items() if not key.startswith(TEXT_SIDE)}
        state = {key: value for key, value in state.items() if not key.endswith(".position_ids")}
        self.vit = loaded(self.vit, state, self.cfg.name)

    def forward(self, pixels: TowerInput) -> TowerOutput:
        valid_BN = None
        if isinstance(pixels, Patches):
            valid_BN = pixels.valid_BN
            places = {"pixel_attention_mask": valid_BN.int(), "spatial_shapes": torch.tensor(pixels.grids)}
            out = self.vit(pixels.patches_BNP, **places, output_hidden_states=self.cfg.layer != -1)
        else:
            out = self.vit(pixels, output_hidden_states=self.cfg.layer != -1, **self.extra)
        states = out.last_hidden_state if self.cfg.layer == -1 else out.hidden_states[self.cfg.layer]
        pooled_BD = out.pooler_output
        if pooled_BD is None:
            patches_BND = out.last_hidden_state[:, self.prefix :]
            weight_BN1 = (
                torch.ones(patches_BND.shape[:2])[..., None] if valid_BN is None else valid_BN[..., None].float()
            )
            pooled_BD = (patches_BND * weight_BN1).sum(1) / weight_BN1.sum(1)
        return TowerOutput(states[:, self.prefix :], pooled_BD)


def loaded(model: Any, state: Mapping[str, Tensor], name: str) -> Any:
    """A model of transformers with these weights, which the library may know by older names.

    Raises `BadInput` naming the tensors that are missing, unexpected or of another shape.
    """
    said, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)  # it reports in a table what is raised below in a line
    logging.disable_progress_bar()
    try:
        model, info = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=dict(state),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    finally:
        logging.set_verbosity(said)
        if bars:
            logging.enable_progress_bar()
    other = [f"{key} expected {list(own)}, got {list(got)}" for key, got, own in info["mismatched_keys"]]
    refuse(unfit(name), sorted(info["missing_keys"]), sorted(info["unexpected_keys"]), sorted(other))
    return model


def read(folder: Path) -> TowerConfig:
    """The config of a folder as `save_pretrained` writes it, with its processor; the vision side where it has two."""
    _, where = read_processor(folder)
    try:
        cfg = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{folder}: not a checkpoint of transformers: {' '.join(str(error).split())[:200]}") from None
    vision = getattr(cfg, "vision_config", cfg)
    if vision.model_type not in PREFIXES:
        raise unknown("vision model type of transformers", vision.model_type, PREFIXES)
    activation = "silu" if getattr(vision, "use_swiglu_ffn", False) else vision.hidden_act
    budget = getattr(processor, "max_num_patches", None)
    size = vision.image_size if budget is None else int(vision.num_patches**0.5) * vision.patch_size
    framing = {} if budget is not None else _framing(processor, where)
    image_size = framing.pop("image_size", size)
    return config.parse(
        TowerConfig,
        {
            "library": "transformers",
            "name": vision.model_type,
            "image_size": image_size,
            "patch": vision.patch_size,
            "width": vision.hidden_size,
            "activation": ACTIVATION_NAMES.get(activation, activation),
            "mean": processor.image_mean,
            "std": processor.image_std,
            "interpolation": INTERPOLATIONS.get(int(processor.resample), processor.resample),
            "framing": {**framing, "kernel": _kernel(processor)},
            "budget": budget,
            "options": {key: value for key, value in vision.to_diff_dict().items() if key not in NOISE},
        },
        str(folder),
    )


def _kernel(processor: Any) -> str:
    if type(processor).__name__.startswith("DINOv3"):
        return "float"  # it resizes floats
    return "torchvision" if processor.backend == "torchvision" else "pillow"


def _framing(processor: Any, where: Path) -> dict[str, Any]:
    """The keys of `Framing`, and `image_size`; `where` is the file to name."""
    expected = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    for key, value in expected.items():
        if getattr(processor, key) is not value:
            raise BadInput(f"{where}: key {key}: expected {value}, got {getattr(processor, key)}")
    if abs(processor.rescale_factor * 255 - 1) > 1e-6:
        raise BadInput(f"{where}: key rescale_factor: expected 1/255, got {processor.rescale_factor}")
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    if size.shortest_edge and not size.longest_edge and crop:
        framing = {"resize": "shortest", "side": size.shortest_edge}
    elif size.height and size.height == size.width:
        framing = {"resize": "squash", "side": size.height}
        crop = crop or size
    else:
        raise BadInput(f"{where}: key size: expected a square, or a shortest_edge and a crop, got {size}")
    if crop.height != crop.width:
        raise BadInput(f"{where}: key crop_size: expected a square, got {crop.height}x{crop.width}")
    return {**framing, "offset": "floored", "image_size": crop.height}
