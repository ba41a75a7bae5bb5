"""Greedy decoding of a batch of prompts with pictures.

B prompts, T prompt tokens (left-padded), W language width, V vocabulary.

Sums of floats depend on how many rows are computed together, so two almost equal logits could change places with the
batch. Where the best two are that close, the sequence is computed again alone, and that decides: a reply is the same
in every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import chain

import torch
from torch import Tensor

from vlm.conversation.packing import IMAGE_SLOT
from vlm.errors import BadInput
from vlm.language.attention.kv_cache import KVCache
from vlm.language.decoder import PREFILL_CHUNK, LanguageModel
from vlm.models.tiled import Grids, TiledModel
from vlm.models.vision_language import VisionLanguageModel

NEAR_TIE = 1e-3
"""Logits this close are decided alone. Batching moves a float32 logit by some 1e-5."""


@torch.inference_mode()
def greedy(
    model: VisionLanguageModel,
    prompts: list[list[int]],
    patches_IND: Tensor | None,
    *,
    frames: Sequence[Sequence[int]] | None = None,
    stop: int,
    max_tokens: int,
    prefill_chunk: int = PREFILL_CHUNK,
) -> list[list[int]]:
    """The most likely next token until `stop` or `max_tokens`, for each prompt; `stop` itself is not returned.

    `patches_IND` are the pictures of all prompts in reading order; `frames` says of each prompt how many of them each
    of its clips has, by default one. Prompts of different lengths are padded on the
    left and masked, so a prompt's result does not depend on its neighbours. They are read `prefill_chunk` tokens at a
    time. Raises `BadInput` where a prompt and its reply would be longer than what the language model reads.
    """
    if not prompts:
        return []
    device = model.language.embedding.weight.device
    longest = max(len(prompt) for prompt in prompts)
    tokens_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    real_BT = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device).bool()
    if frames is None:
        frames = [[1] * (prompt.count(IMAGE_SLOT) // model.cfg.visual_tokens) for prompt in prompts]
    pictures = [sum(clips) for clips in frames]

    def alone(row: int, reply: list[int]) -> Tensor:
        own = None if patches_IND is None else patches_IND.split(pictures)[row]
        return model.embed(torch.tensor([prompts[row] + reply], device=device), own, frames[row])

    x_BTW = model.embed(tokens_BT, patches_IND, [*chain(*frames)])
    return _decode(
        model.language, x_BTW, real_BT, alone, stop=(stop,), max_tokens=max_tokens, prefill_chunk=prefill_chunk
    )


@torch.inference_mode()
def greedy_tiled(
    model: TiledModel,
    tokens_BT: Tensor,
    pixels_NCHW: Tensor | None = None,
    grids: Grids | None = None,
    *,
    real_BT: Tensor | None = None,
    stop: Container[int],
    max_tokens: int,
    prefill_chunk: int = PREFILL_CHUNK,
) -> list[list[int]]:
    """The same for a model of tiles, whose batch comes padded on the left; `real_BT` is false at the padding.

    Pictures are looked at one by one, so a row's embeddings are those it would have alone.
    """
    real_BT = model.real(tokens_BT) if real_BT is None else real_BT.bool()
    x_BTW = model.embed(tokens_BT, pixels_NCHW, grids)

    def alone(row: int, reply: list[int]) -> Tensor:
        said_RW = model.language.embedding(torch.tensor(reply, dtype=torch.long, device=tokens_BT.device))
        return torch.cat([x_BTW[row, real_BT[row]], said_RW])[None]

    return _decode(model.language, x_BTW, real_BT, alone, stop=stop, max_tokens=max_tokens, prefill_chunk=prefill_chunk)


def _decode(
    language: LanguageModel,
    x_BTW: Tensor,
    real_BT: Tensor,
    alone: Callable[[int, list[int]], Tensor],
    *,
    stop: Container[int],
    max_tokens: int,
    prefill_chunk: int,
) -> list[list[int]]:
    """Replies to prompts embedded as `x_BTW`; `alone` gives one prompt and what it said so far, `[1, T, W]`."""
    prompts, longest = real_BT.shape
    if (tokens := longest + max_tokens) > (room := language.cfg.context):
        both = f"a prompt of {longest} tokens and a reply of up to {max_tokens} are {tokens} tokens"
        raise BadInput(f"{both}; the language model reads at most {room}")
    cache = KVCache(language.cfg, prompts, longest + max_tokens, like=x_BTW)
    hidden = language.prefill(x_BTW, cache, real_BS=real_BT, chunk=prefill_chunk)
    replies: list[list[int]] = [[] for _ in range(prompts)]
    rows = torch.arange(prompts, device=x_BTW.device)
    real_BS = real_BT
    for step in range(max_tokens):
        best = language.logits(hidden).topk(2, dim=-1)
        next_B = best.indices[:, 0]
        for i in (best.values[:, 0] - best.values[:, 1] < NEAR_TIE).nonzero()[:, 0].tolist():
            row = int(rows[i])
            # Without a batch, padding or cache.
            next_B[i] = language.logits(language.hidden(alone(row, replies[row]))[:, -1]).argmax()
        running = torch.tensor([token not in stop for token in next_B.tolist()], device=x_BTW.device)
        for row, token in zip(rows[running].tolist(), next_B[running].tolist(), strict=True):
            replies[row].append(token)
        if not bool(running.any()) or step + 1 == max_tokens:
            break
        if not bool(running.all()):
            rows, next_B, real_BS = rows[running], next_B[running], real_BS[running]
            cache.keep(running)
        real_BS = torch.cat([real_BS, real_BS.new_ones(len(rows), 1)], dim=1)
        hidden = language.prefill(language.embedding(next_B[:, None]), cache, real_BS=real_BS)
    return replies
