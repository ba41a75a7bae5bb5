"""The reference implementation of a model in transformers, and whether two results agree."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from vlm.language import LanguageModel, save
from vlm.language.config import LanguageConfig

EXPERT_PATHS = {"eager": "a loop over experts", "grouped_mm": "grouped products", "batched_mm": "batched products"}
"""transformers' ways to compute a mixture layer; its models read `config._experts_implementation` at every call."""


def build_pair(cfg: LanguageConfig, family: str) -> tuple[LanguageModel, Any]:
    """A random model of ours, and the same in transformers, through a folder."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    ours = LanguageModel(cfg).eval()
    with torch.no_grad():
        ours.embedding.weight *= 0.1  # else a token's own embedding drowns what the layers say
    with tempfile.TemporaryDirectory() as folder:
        save(ours, folder, family)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return ours, theirs.eval()


def check_agreement(what: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """Raise where the greatest difference is more than this share of the greatest value."""
    difference, scale = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not difference <= tolerance * scale:
        raise AssertionError(
            f"{what}: ours and the peer's results differ by {difference:.2g} at a scale of {scale:.2g}"
        )


def parameter_count(model: nn.Module) -> str:
    """In millions."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.0f}M"
