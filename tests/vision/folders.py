"""Small random models of four libraries, saved as each library saves its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

SIZES = [(300, 200), (97, 211), (64, 64), (63, 64), (20, 31), (33, 128), (131, 130)]
"""Widths and heights: odd and even margins, smaller and larger than what a tower takes."""


def photograph(width: int, height: int) -> Image.Image:
    """Smooth shapes and some noise."""
    rng = np.random.default_rng(width)
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    smooth = np.stack([np.sin(x * y), np.cos(x + y), np.sin(2 * x - y)], axis=-1) * 100 + 128
    return Image.fromarray((smooth + rng.normal(0, 15, smooth.shape)).clip(0, 255).astype(np.uint8))


def photographs() -> list[Image.Image]:
    return [photograph(*size) for size in SIZES]


@torch.no_grad()
def shaken(model: nn.Module) -> Any:
    """The model with every parameter random, so that none can be left out unseen; in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * 0.1 + (1 if "norm" in name and name.endswith("weight") else 0))
    return model.eval()


SHORT = {"depth": 3, "embed_dim": 64, "num_heads": 2}
TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "cls": ("test_vit", {"img_size": 64}),
    "registers and mean": ("test_vit4", {"img_size": 64}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {**SHORT, "img_size": 56}),
    "dinov3": ("vit_small_patch16_dinov3", {**SHORT, "img_size": 64}),
    "siglip": ("vit_base_patch16_siglip_224", {**SHORT, "img_size": 64}),
    "clip": ("vit_base_patch16_clip_quickgelu_224", {**SHORT, "img_size": 64}),
    "eva": ("eva02_tiny_patch14_224", {**SHORT, "img_size": 56}),
    "convnext": ("test_convnext", {}),
}
NAFLEX = ("naflexvit_base_patch16_siglip", {**SHORT, "pos_embed_grid_size": (4, 4)})


def save_timm(folder: Path, name: str, options: dict[str, Any], classes: int = 5, **data: Any) -> Any:
    model = shaken(timm.create_model(name, num_classes=classes, **options))
    size = options.get("img_size", 64)
    timm.models.save_for_hf(model, folder, safe_serialization=True, data_config={"input_size": (3, size, size), **data})
    return model


CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "openai": {"vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16}, "quick_gelu": True},
    "mean": {
        "vision_cfg": {
            "image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "pool_type": "avg",
            "final_ln_after_pool": True,
        },
    },
    "attention pool": {
        "vision_cfg": {
            "image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "attentional_pool": True,
            "attn_pooler_queries": 5, "attn_pooler_heads": 2,
        },
    },
    "siglip of timm": {
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "none"},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    "projected by timm": {
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": ""},
    },
    "convnext of timm": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    },
}  # fmt: skip


def save_open_clip(folder: Path, config: dict[str, Any], **data: Any) -> Any:
    known = {
        "embed_dim": 64 if config["vision_cfg"].get("timm_proj") == "none" else 24,
        "text_cfg": CLIP_TEXT,
        **config,
    }
    custom = known.pop("custom_text", False)
    model = shaken((open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**json.loads(json.dumps(known))))
    folder.mkdir(exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], **data}
    content = {"model_cfg": {**known, **({"custom_text": True} if custom else {})}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return model


def small_vit(name: str, options: dict[str, Any]) -> Any:
    """In the place of torchvision's `vit_b_32`, which is 88M parameters at its smallest."""
    shape = {"patch_size": 32, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}
    return torchvision.models.VisionTransformer(**{"image_size": 224, **shape, **options})


def save_torchvision(folder: Path, weights: str = "IMAGENET1K_V1") -> Any:
    model = shaken(small_vit("vit_b_32", {}))
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    content = {"library": "torchvision", "architecture": "vit_b_32", "weights": weights}
    (folder / "config.json").write_text(json.dumps(content))
    return model


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = {
    **SMALL,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SQUARE = {"image_size": 64, "patch_size": 16}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "clip": (
        "clip", {"vision_config": {**SMALL, **SQUARE}, "text_config": TEXT, "projection_dim": 8},
        "CLIPImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    ),
    "siglip": (
        "siglip", {"vision_config": {**SMALL, **SQUARE}, "text_config": TEXT},
        "SiglipImageProcessor", {"size": {"height": 64, "width": 64}},
    ),
    "siglip without a head": (
        "siglip_vision_model", {**SMALL, **SQUARE, "vision_use_head": False},
        "SiglipImageProcessor", {"size": {"height": 64, "width": 64}},
    ),
    "siglip2": (
        "siglip2", {"vision_config": {**SMALL, "patch_size": 16, "num_patches": 16}, "text_config": TEXT},
        "Siglip2ImageProcessor", {"patch_size": 16, "max_num_patches": 20},
    ),
    "dinov2": (
        "dinov2", {**SMALL, **SQUARE},
        "BitImageProcessor", {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}},
    ),
    "dinov2 with registers": (
        "dinov2_with_registers", {**SMALL, **SQUARE, "num_register_tokens": 3},
        "BitImageProcessor", {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}},
    ),
    "dinov3": (
        "dinov3_vit", {**SMALL, **SQUARE, "num_register_tokens": 2},
        "DINOv3ViTImageProcessor", {"size": {"height": 64, "width": 64}},
    ),
}  # fmt: skip


def save_transformers(folder: Path, kind: str, config: dict[str, Any], processor: str, data: dict[str, Any]) -> Any:
    """The whole model, of which a tower is the vision side."""
    model = shaken(AutoModel.from_config(AutoConfig.for_model(kind, **config)))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": processor, **data}))
    return model, AutoImageProcessor.from_pretrained(folder)
