"""From a dense decoder to a mixture of experts: by adding experts to it, by copying its feed-forwards, or by splitting
them.

Each way says what it promises of the logits before training. Everything but the feed-forwards of mixture layers is
shared with the dense model, not copied.

D width, E routed experts, k chosen experts a token, F hidden width of an expert.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vlm.errors import BadInput
from vlm.language.config.mixture import MoEConfig
from vlm.language.decoder import LanguageModel
from vlm.language.mixture.moe import MixtureOfExperts, SwiGLU


@torch.no_grad()
def upcycle(dense: LanguageModel, moe: MoEConfig) -> LanguageModel:
    """A mixture whose logits equal the dense model's until it is trained.

    The pretrained feed-forward becomes the shared expert; routed experts start with a zero output projection. As in
    LoRA (arXiv:2106.09685, section 4.1) the zero is on one side only, so gradients reach the experts at once.
    Raises `ValueError` where the shared expert is not the feed-forward's width.
    """
    if (width := moe.shared_width) not in (None, dense.cfg.ffn_width):
        raise ValueError(f"shared_width {width}: adding experts needs the dense width {dense.cfg.ffn_width}")

    def start(ffn: MixtureOfExperts, old: SwiGLU) -> None:
        ffn.shared = old
        for weight in (ffn.routed.gate_EFD, ffn.routed.up_EFD):
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        nn.init.zeros_(ffn.routed.down_EDF)

    return _mixture(dense, moe, start)


@torch.no_grad()
def upcycle_by_copy(dense: LanguageModel, moe: MoEConfig) -> LanguageModel:
    """Sparse upcycling (arXiv:2212.05055, section 3): every routed expert is a copy of the feed-forward.

    Whatever a token chooses, a mixture layer gives the dense output times the sum of its gates: the dense model's
    logits where gates are normalised and `scale` is 1. Experts differ once they have seen different tokens.
    Raises `ValueError` where the experts are not the feed-forward's width, or a shared expert stands beside them.
    """
    if moe.shared_width != 0 or moe.width != dense.cfg.ffn_width:
        raise ValueError(
            f"copying needs shared_width 0 and width {dense.cfg.ffn_width}, got {moe.shared_width} and {moe.width}"
        )
    _without_bias(dense)

    def start(ffn: MixtureOfExperts, old: SwiGLU) -> None:
        ffn.routed.gate_EFD.copy_(old.gate_proj.weight.expand_as(ffn.routed.gate_EFD))
        ffn.routed.up_EFD.copy_(old.up_proj.weight.expand_as(ffn.routed.up_EFD))
        ffn.routed.down_EDF.copy_(old.down_proj.weight.expand_as(ffn.routed.down_EDF))

    return _mixture(dense, moe, start)


@torch.no_grad()
def upcycle_by_split(dense: LanguageModel, moe: MoEConfig, spread: float = 0.01) -> LanguageModel:
    """Fine-grained experts cut out of the feed-forward (LLaMA-MoE, arXiv:2406.16554, section 3.1): slices of its hidden
    width, the first `shared_width` numbers of it always at work as the shared expert.

    A feed-forward is the sum of its slices. Output projections are scaled so that a chosen slice counts E / k times
    where the router prefers none: with all experts chosen that is the dense model, with fewer its mean over random
    choices. `spread` is the deviation of the router's logits; with 0 the first holds exactly, but every token calls
    the same experts, so the default is enough to tell tokens apart and gates are even to about a hundredth.
    Raises `ValueError` where the slices are not the feed-forward's width together.
    """
    shared, width = moe.shared_width, dense.cfg.ffn_width
    if shared is None or shared + moe.experts * moe.width != width:
        raise ValueError(
            f"splitting needs shared_width + experts * width = {width}, got {shared} + {moe.experts} * {moe.width}"
        )
    _without_bias(dense)
    factor = moe.experts / (moe.top_k * _even_gate(moe))

    def start(ffn: MixtureOfExperts, old: SwiGLU) -> None:
        gate, up, down = old.gate_proj.weight, old.up_proj.weight, old.down_proj.weight
        if ffn.shared is not None:
            ffn.shared.to_empty(device=gate.device).to(gate.dtype)
            ffn.shared.gate_proj.weight.copy_(gate[:shared])
            ffn.shared.up_proj.weight.copy_(up[:shared])
            ffn.shared.down_proj.weight.copy_(down[:, :shared])
        ffn.routed.gate_EFD.copy_(gate[shared:].unflatten(0, (moe.experts, -1)))
        ffn.routed.up_EFD.copy_(up[shared:].unflatten(0, (moe.experts, -1)))
        ffn.routed.down_EDF.copy_(down[:, shared:].unflatten(1, (moe.experts, -1)).transpose(0, 1) * factor)

    return _mixture(dense, moe, start, spread)


STARTS: dict[str, Callable[[LanguageModel, MoEConfig], LanguageModel]] = {
    "zero": upcycle,
    "copy": upcycle_by_copy,
    "split": upcycle_by_split,
}
"""By the name that a card gives (`MoEConfig.start`)."""


def upcycled(dense: LanguageModel, moe: MoEConfig) -> LanguageModel:
    """The mixture that a card asks for. Raises `BadInput` where the dense model cannot start it that way."""
    try:
        return STARTS[moe.start](dense, moe)
    except ValueError as error:
        raise BadInput(f"language.moe, start {moe.start}: {error}") from None


def _even_gate(moe: MoEConfig) -> float:
    """The gate of a chosen expert where a token's scores are all the same."""
    if moe.normalise:
        return moe.scale / moe.top_k
    return moe.scale * (0.5 if moe.scoring == "sigmoid" else 1 / moe.experts)


def _without_bias(dense: LanguageModel) -> None:
    if dense.cfg.ffn_bias:
        raise ValueError("the feed-forward has biases, which routed experts cannot take over")


def _mixture(
    dense: LanguageModel, moe: MoEConfig, start: Callable[[MixtureOfExperts, SwiGLU], None], spread: float = 1.0
) -> LanguageModel:
    """The mixture around the dense model's weights. `start` fills the experts from the feed-forward they replace; the
    router's logits have the deviation `spread` for inputs of unit size."""
    if dense.cfg.moe is not None:
        raise ValueError("the model already is a mixture of experts")
    if dense.cfg.multi_token:
        raise ValueError("multi_token: heads of a dense model have no place in a mixture")
    if moe.shared_gate:
        raise ValueError("shared_gate: an untrained gate would halve what the shared expert says")
    cfg = dense.cfg.model_copy(update={"moe": moe})
    with torch.device("meta"):
        model = LanguageModel(cfg)
    # Not strict: the feed-forwards that become experts have no place under their own names.
    model.load_state_dict(dense.state_dict(keep_vars=True), strict=False, assign=True)
    if cfg.tied_embeddings:
        model.lm_head.weight = model.embedding.weight
    like = dense.embedding.weight
    for layer, old in zip(model.layers, dense.layers, strict=True):
        if isinstance(layer.ffn, MixtureOfExperts) and isinstance(old.ffn, SwiGLU):
            router, routed = layer.ffn.router, layer.ffn.routed
            router.to_empty(device=like.device)
            nn.init.normal_(router.centroids.weight, std=spread * router.centroids.in_features**-0.5)
            router.reset()
            router.centroids.to(like.dtype)
            routed.to_empty(device=like.device).to(like.dtype)
            start(layer.ffn, old.ffn)
    return model
