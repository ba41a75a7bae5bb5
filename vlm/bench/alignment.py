"""`vlm bench alignment`: contrastive losses of a large batch, forward and backward, against open_clip's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm.alignment.chunked import chunked_clip_loss, chunked_siglip_loss
from vlm.bench.timing import Missing, Result, alternate, in_new_process, peak_megabytes

BATCH, WIDTH = 4096, 512


def run(rounds: int = 5, say: Callable[[str], None] = lambda text: None) -> Iterator[Result]:
    """Each comparison as soon as it is made; the two sides' losses and gradients must be equal."""
    for benchmark in (_clip, _siglip):
        say(benchmark.__name__.strip("_"))
        yield in_new_process(benchmark, rounds)


def _clip(rounds: int) -> Result:
    from open_clip.loss import ClipLoss

    peer = ClipLoss()
    return _compare("CLIP loss", rounds, chunked_clip_loss, lambda i, t, s, b: peer(i, t, s), biased=False)


def _siglip(rounds: int) -> Result:
    from open_clip.loss import SigLipLoss

    return _compare("SigLIP loss", rounds, chunked_siglip_loss, SigLipLoss(), biased=True)


def _compare(
    what: str, rounds: int, mine: Callable[..., Tensor], theirs: Callable[..., Any], *, biased: bool
) -> Result:
    what = f"{what}, forward and backward, {BATCH} pairs of width {WIDTH}"
    if importlib.util.find_spec("open_clip") is None:
        return Missing(what, "open_clip", "not installed (pip install open_clip_torch)")
    # Made by numpy, and memory measured first: a process whose threads have run is not to be forked.
    rows = np.random.default_rng(0).standard_normal((2, BATCH, WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    image, text = (torch.from_numpy(side).requires_grad_() for side in rows)
    scale, bias = torch.tensor(20.0, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    owner = torch.arange(BATCH)
    leaves = [image, text, scale, *([bias] if biased else [])]

    def ours() -> list[Tensor]:
        loss = mine(image, text, owner, scale, *([bias] if biased else []))
        return [loss, *torch.autograd.grad(loss, leaves)]

    def peer() -> list[Tensor]:
        loss = theirs(image, text, scale, bias)
        return [loss, *torch.autograd.grad(loss, leaves)]

    memory = [peak_megabytes(function) for function in (ours, peer)]
    for a, b in zip(ours(), peer(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    note = "" if None in memory else f"memory {memory[0]:.0f} MB, peer {memory[1]:.0f} MB"
    return alternate(what, "open_clip", ours, peer, rounds, note)
