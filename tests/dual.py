"""Random dual encoders, saved as their libraries save their own; those of transformers know a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

WORDS = "[PAD] [BOS] [EOS] [UNK] a photo of red blue green black square that is on the wall cat dog .".split()
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
SQUARE = {"height": 64, "width": 64}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clip": (
        {"vision_config": {**SMALL, "image_size": 64, "patch_size": 16}, "projection_dim": 8},
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 64}, "crop_size": SQUARE},
    ),
    "siglip": (
        {"vision_config": {**SMALL, "image_size": 64, "patch_size": 16}},
        {"image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    ),
    "siglip2": (
        {"vision_config": {**SMALL, "patch_size": 16, "num_patches": 16}},
        {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 16, "max_num_patches": 20},
    ),
}  # fmt: skip


@torch.no_grad()
def save_dual(folder: Path, kind: str = "clip") -> Any:
    """The library's model, saved in `folder`; every parameter is random."""
    config, processor = KINDS[kind]
    model: Any = AutoModel.from_config(AutoConfig.for_model(kind, **config, text_config=TEXT)).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * 0.1 + (1 if "norm" in name and name.endswith("weight") else 0))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return model


OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def save_open_clip_dual(folder: Path) -> Any:
    """open_clip's model, saved in `folder`."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads(json.dumps(OPEN_CLIP))).eval()
    folder.mkdir(exist_ok=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    content = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return model
