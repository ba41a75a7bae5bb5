"""From a dense decoder to a mixture of experts that computes the same function."""

from __future__ import annotations

import torch
from torch import nn

from vlm.language.config import MoEConfig
from vlm.language.decoder import LanguageModel
from vlm.language.moe import MixtureOfExperts


@torch.no_grad()
def upcycle(dense: LanguageModel, moe: MoEConfig) -> LanguageModel:
    """A mixture whose logits equal the dense model's until it is trained.

    The pretrained feed-forward becomes the shared expert; routed experts start with a zero output projection. As in
    LoRA (arXiv:2106.09685, section 4.1) the zero is on one side only, so gradients reach the experts at once.
    Everything else is shared with `dense`, not copied.
    """
    if dense.cfg.moe is not None:
        raise ValueError("the model already is a mixture of experts")
    cfg = dense.cfg.model_copy(update={"moe": moe})
    with torch.device("meta"):
        model = LanguageModel(cfg)
    state = {
        name.replace(".ffn.", ".ffn.shared.") if _is_mixture(name, moe) else name: tensor
        for name, tensor in dense.state_dict(keep_vars=True).items()
    }
    model.load_state_dict(state, strict=False, assign=True)
    if cfg.tied_embeddings:
        model.lm_head.weight = model.embedding.weight
    weight = dense.embedding.weight
    for layer in model.layers:
        if isinstance(layer.ffn, MixtureOfExperts):
            _start(layer.ffn, weight.dtype, weight.device)
    return model


def _is_mixture(name: str, moe: MoEConfig) -> bool:
    parts = name.split(".")
    return parts[0] == "layers" and parts[2] == "ffn" and moe.is_mixture(int(parts[1]))


def _start(ffn: MixtureOfExperts, dtype: torch.dtype, device: torch.device) -> None:
    for module in (ffn.router, ffn.routed):
        module.to_empty(device=device)
    router, routed = ffn.router, ffn.routed
    nn.init.normal_(router.centroids.weight, std=router.centroids.in_features**-0.5)
    router.bias_E.zero_()
    router.load_E.zero_()
    for weight in (routed.gate_EFD, routed.up_EFD):
        nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    nn.init.zeros_(routed.down_EDF)
    router.centroids.to(dtype)
    routed.to(dtype)
