"""Random models of published families, built by transformers, that say something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vlm.conversation.inputs import Inputs

VOCAB = 60
BASE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def theirs(family: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """A random model in evaluation mode: no bias is zero, no norm is one, logits are of the order of one."""
    config = AutoConfig.for_model(family, **{**BASE, **options})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name:
                continue
            if "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 or "e_score_correction_bias" in name:
                tensor.normal_(std=0.2)
            elif "embed_tokens" in name:
                tensor.normal_()
            else:
                tensor.normal_(std=1.5 * tensor.shape[-1] ** -0.5)
    return model


def write(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def left_padded(rows: Sequence[Inputs], pad_token: int) -> Inputs:
    """Several processed conversations as one batch, filled on the left."""
    longest = max(row.input_ids.shape[1] for row in rows)
    ids = [nn.functional.pad(row.input_ids, (longest - row.input_ids.shape[1], 0), value=pad_token) for row in rows]
    pixels = [row.pixels for row in rows if row.pixels is not None]
    grids = [row.grids for row in rows if row.grids is not None]
    return Inputs(torch.cat(ids), torch.cat(pixels) if pixels else None, torch.cat(grids) if grids else None)


def gap(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, in parts of the logits' scale."""
    assert ours.shape == expected.shape
    scale = float(expected.abs().max())
    assert expected.std() > 0.05, "the model says nothing"
    return float((ours - expected).abs().max()) / scale
