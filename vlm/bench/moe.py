"""`vlm bench moe`: a mixture layer against each of transformers' ways to compute it, and against reading its weights.

Weights are random and the same on both sides; outputs and input gradients must agree before anything is timed. Float32,
on the threads that torch was given.

B sequences, T tokens, D width, E experts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from vlm.bench.reference import EXPERT_PATHS, build_pair, check_agreement
from vlm.bench.timing import Ratio, Say, alternate, peak_here
from vlm.language.config import LanguageConfig
from vlm.language.config.attention import GroupedQueryConfig
from vlm.language.config.mixture import MoEConfig
from vlm.language.mixture.moe import MixtureOfExperts

MOE = LanguageConfig(
    vocab_size=64, width=576, layers=1, heads=9, kv_heads=3, head_width=64, ffn_width=1536, max_positions=4096,
    attention=GroupedQueryConfig(qk_norm="head"),
    moe=MoEConfig(experts=64, top_k=8, width=192, shared_width=0, scoring="softmax", balanced=False),
)  # fmt: skip
FORWARD_TOKENS = TRAINING_TOKENS = (1, 16, 512, 4096)
READ_TOKENS = (1, 16)
"""Where reading the weights is most of the time."""
ALL_WEIGHTS_A_ROW = 64
"""The batched path copies an expert's weights for every row: up to this many tokens only."""
LEAST_SECONDS = 1.0
"""Short calls take more turns than asked for."""


def run(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Ratio]:
    ours, theirs = build_pair(MOE, "qwen3_moe")
    layer, block, config = ours.layers[0].get_submodule("ffn"), theirs.model.layers[0].mlp, theirs.config
    assert MOE.moe is not None
    shape = f"{MOE.moe.experts} experts of {MOE.moe.width}, {MOE.moe.top_k} a token"
    cases = [("forward", _forward, tokens) for tokens in FORWARD_TOKENS]
    cases += [("forward and backward", _training_step, tokens) for tokens in TRAINING_TOKENS]
    for (name, step, tokens), (path, peer) in itertools.product(cases, EXPERT_PATHS.items()):
        if path == "batched_mm" and tokens > ALL_WEIGHTS_A_ROW:
            continue
        what = f"mixture layer {name}, {tokens} tokens, {shape}"
        say(f"{what}, {path}")
        config._experts_implementation = path
        x_BTD = torch.randn(1, tokens, MOE.width)
        mine, other = partial(step, layer, x_BTD), partial(step, block, x_BTD)
        check_agreement(what, mine(), other())
        note = _memory(mine, other) if tokens > ALL_WEIGHTS_A_ROW else ""
        yield alternate(what, f"transformers, {peer}", mine, other, rounds, note, LEAST_SECONDS)
    assert isinstance(layer, MixtureOfExperts)
    for tokens in READ_TOKENS:
        say(f"reading, {tokens} tokens")
        yield _reading(f"mixture layer forward, {tokens} tokens, {shape}", layer, tokens, rounds)


def _reading(what: str, layer: MixtureOfExperts, tokens: int, rounds: int) -> Ratio:
    """Against the floor: one pass over as many bytes as the weights of the experts that are called."""
    x_BTD = torch.randn(1, tokens, MOE.width)
    with torch.inference_mode():
        called = len(layer.router(x_BTD[0])[1].unique())
    weights = [weight.detach()[:called] for weight in layer.routed.parameters()]
    megabytes = sum(weight.nbytes for weight in weights) / 2**20
    peer = f"a sum over the weights of the {called} experts called, {megabytes:.0f} MB"

    def other() -> None:
        for weight in weights:
            weight.sum()

    return alternate(what, peer, partial(_forward, layer, x_BTD), other, rounds, least_seconds=LEAST_SECONDS)


@torch.inference_mode()
def _forward(layer: nn.Module, x_BTD: Tensor) -> Tensor:
    return layer(x_BTD)


def _training_step(layer: nn.Module, x_BTD: Tensor) -> Tensor:
    """Gradient of the input; those of the weights are made, too."""
    layer.zero_grad()
    x_BTD = x_BTD.clone().requires_grad_()
    layer(x_BTD).square().sum().backward()
    assert x_BTD.grad is not None
    return x_BTD.grad


def _memory(mine: partial[Tensor], other: partial[Tensor]) -> str:
    ours, theirs = peak_here(mine), peak_here(other)
    return "" if ours is None or theirs is None else f"needs {ours:.0f} MB, the peer {theirs:.0f}"
