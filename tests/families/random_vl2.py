"""DeepSeek-VL2 folders with random weights, written without our loader: torch modules under the published names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.layers import GELUTanh
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from vlm.language.checkpoints.families import original_v2
from vlm.language.decoder import LanguageModel

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
CONTROL = [BOS, EOS, PAD, "<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "<|User|>"]
VOCAB = 320
CANDIDATES = [[56, 56], [112, 56], [56, 112], [112, 112], [168, 56]]
VISION = {"image_size": 56, "patch_size": 11, "width": 24, "layers": 2, "heads": 3, "mlp_ratio": 2.3}
PROJECTOR = {"input_dim": 24, "n_embed": 32}
LANGUAGE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "use_mla": False, "max_position_embeddings": 512, "n_routed_experts": 6,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
    "routed_scaling_factor": 1.3,
}  # fmt: skip


def random_state(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in module.state_dict().items():
        if "norm" in name and name.endswith("weight"):
            value = torch.rand(tensor.shape) + 0.5
        else:
            value = torch.randn(tensor.shape) * (0.2 if tensor.ndim < 2 else tensor.shape[-1] ** -0.5)
        state[prefix + name] = value
    return state


def vision(fields: dict[str, Any]) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(
        img_size=fields["image_size"], patch_size=fields["patch_size"], embed_dim=fields["width"],
        depth=fields["layers"], num_heads=fields["heads"], mlp_ratio=fields["mlp_ratio"], class_token=False,
        global_pool="map", num_classes=0, act_layer=GELUTanh,
    ).eval()  # fmt: skip


def projector(fields: dict[str, Any]) -> nn.Module:
    """As the authors' configs describe it."""
    kind, wide = fields.get("projector_type", "downsample_mlp_gelu"), fields["n_embed"]
    if kind == "linear":
        return nn.Linear(fields["input_dim"], wide)
    factor = fields.get("downsample_ratio", 2) if kind == "downsample_mlp_gelu" else 1
    hidden = wide * fields.get("mlp_ratio", 1) if kind == "downsample_mlp_gelu" else wide
    depth = fields.get("depth", 2)
    layers = [nn.Linear(fields["input_dim"] * factor**2, hidden)]
    for _ in range(1, depth - 1):
        layers += [nn.GELU(), nn.Linear(hidden, hidden)]
    return nn.Sequential(*layers, nn.GELU(), nn.Linear(hidden, wide))


def language(fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors under the published names, experts one by one."""
    family = original_v2(fields)
    model = LanguageModel(family.read(family.parse(fields, ""), ""))
    state = {}
    for name, tensor in random_state(model, "").items():
        theirs = family.tensor(name, model.cfg.layers)
        if ".experts.*." in theirs:
            state |= {theirs.replace("*", str(number)): expert.clone() for number, expert in enumerate(tensor)}
        else:
            state[theirs] = tensor
    return {f"language.{name}": tensor for name, tensor in state.items()}


def write_tokenizer(folder: Path) -> None:
    """Without `<|Assistant|>`, which the processor then adds."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 1, special_tokens=CONTROL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["What is in the picture? Describe the video.", "a cup and a box"] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": BOS, "eos_token": {"content": EOS}, "pad_token": PAD}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))


def write_folder(
    folder: Path,
    *,
    vision_config: dict[str, Any] | None = None,
    projector_config: dict[str, Any] | None = None,
    language_config: dict[str, Any] | None = None,
    processor_config: dict[str, Any] | None = None,
    seed: int = 0,
    **top: Any,
) -> dict[str, torch.Tensor]:
    """A folder as published, and its tensors. What is given changes the defaults above."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    seeing, joining = VISION | (vision_config or {}), PROJECTOR | (projector_config or {})
    saying = LANGUAGE | (language_config or {})
    config = {"model_type": "deepseek_vl_v2", "candidate_resolutions": CANDIDATES, **top}
    config |= {"vision_config": seeing, "projector_config": joining, "language_config": saying}
    (folder / "config.json").write_text(json.dumps(config))
    processing = {"candidate_resolutions": CANDIDATES, "patch_size": seeing["patch_size"], "sft_format": "deepseek"}
    processing |= {"downsample_ratio": joining.get("downsample_ratio", 2), **(processor_config or {})}
    (folder / "processor_config.json").write_text(json.dumps(processing))
    write_tokenizer(folder)
    state = random_state(vision(seeing), "vision.") | random_state(projector(joining), "projector.layers.")
    state |= language(saying)
    state |= {"image_newline": torch.randn(32), "view_seperator": torch.randn(32)}
    save_file(state, folder / "model.safetensors")
    return state
