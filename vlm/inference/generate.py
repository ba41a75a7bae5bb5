"""Greedy decoding of a batch of prompts with pictures.

B prompts, T prompt tokens (left-padded), W language width, V vocabulary.

Sums of floats depend on how many rows are computed together, so two almost equal logits could change places with the
batch. Where the best two are that close, the sequence is computed again alone, and that decides: a reply is the same
in every batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlm.datasets.packing import IMAGE_SLOT
from vlm.errors import BadInput
from vlm.language.decoder import PREFILL_CHUNK
from vlm.language.kv_cache import KVCache
from vlm.model import VisionLanguageModel

NEAR_TIE = 1e-3
"""Logits this close are decided alone. Batching moves a float32 logit by some 1e-5."""


@torch.inference_mode()
def greedy(
    model: VisionLanguageModel,
    prompts: list[list[int]],
    patches_IND: Tensor | None,
    *,
    stop: int,
    max_tokens: int,
    prefill_chunk: int = PREFILL_CHUNK,
) -> list[list[int]]:
    """The most likely next token until `stop` or `max_tokens`, for each prompt; `stop` itself is not returned.

    `patches_IND` are the pictures of all prompts in reading order. Prompts of different lengths are padded on the
    left and masked, so a prompt's result does not depend on its neighbours. They are read `prefill_chunk` tokens at a
    time. Raises `BadInput` where a prompt and its reply would be longer than what the language model reads.
    """
    if not prompts:
        return []
    device = model.language.embedding.weight.device
    longest, room = max(len(prompt) for prompt in prompts), model.cfg.language.context
    if longest + max_tokens > room:
        raise BadInput(
            f"a prompt of {longest} tokens and a reply of up to {max_tokens} are {longest + max_tokens} tokens; "
            f"the language model reads at most {room}"
        )
    tokens_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    pads_B1 = torch.tensor([[longest - len(prompt)] for prompt in prompts], device=device)
    real_BS = torch.arange(longest + max_tokens, device=device) >= pads_B1
    x_BTW = model.embed(tokens_BT, patches_IND)
    cache = KVCache(model.cfg.language, len(prompts), longest + max_tokens, like=x_BTW)
    hidden = model.language.prefill(x_BTW, cache, real_BS=real_BS[:, :longest], chunk=prefill_chunk)
    replies: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts), device=device)
    for said in range(1, max_tokens + 1):
        best = model.language.logits(hidden).topk(2, dim=-1)
        next_B = best.indices[:, 0]
        for i in (best.values[:, 0] - best.values[:, 1] < NEAR_TIE).nonzero()[:, 0].tolist():
            row = int(rows[i])
            next_B[i] = _alone(model, prompts, row, replies[row], patches_IND)
        running = next_B != stop
        for row, token in zip(rows[running].tolist(), next_B[running].tolist(), strict=True):
            replies[row].append(token)
        if said == max_tokens or not bool(running.any()):
            break
        if not bool(running.all()):
            rows, next_B, real_BS = rows[running], next_B[running], real_BS[running]
            cache.keep(running)
        x_BTW = model.language.embedding(next_B[:, None])
        hidden = model.language.prefill(x_BTW, cache, real_BS=real_BS[:, : cache.length + 1])
    return replies


def _alone(
    model: VisionLanguageModel, prompts: list[list[int]], row: int, reply: list[int], patches_IND: Tensor | None
) -> int:
    """The next token of one prompt and what it said so far, without a batch, padding or cache."""
    pictures = [prompt.count(IMAGE_SLOT) // model.cfg.visual_tokens for prompt in prompts]
    own = None if patches_IND is None else patches_IND.split(pictures)[row]
    tokens_BT = torch.tensor([prompts[row] + reply], device=model.language.embedding.weight.device)
    hidden = model.language.hidden(model.embed(tokens_BT, own))[:, -1]
    return int(model.language.logits(hidden).argmax())
