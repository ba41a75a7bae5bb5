"""Greedy decoding of a batch of prompts with pictures: the plain way, which any faster one is tested against.

B prompts, T prompt tokens (left-padded), S tokens so far, D language width, V vocabulary.

Sums of floats depend on how many rows are computed together, so two almost equal logits could change places with the
batch. Where the best two are that close, the sequence is computed again alone, and that decides: a reply is the same
in every batch.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlm.errors import BadInput
from vlm.language.attention.kv_cache import KVCache
from vlm.language.decoder import PREFILL_CHUNK, LanguageModel

NEAR_TIE = 1e-3
"""Logits this close are decided alone. Batching moves a float32 logit by some 1e-5. In bfloat16 it may move one by more
(by up to 2.5 in a mixture, where a router then chooses other experts), so there a reply may depend on its batch."""


def greedy(
    language: LanguageModel,
    prompts: Sequence[Tensor],
    *,
    stop: Container[int],
    max_tokens: int,
    prefill_chunk: int = PREFILL_CHUNK,
) -> list[list[int]]:
    """The most likely next token until one of `stop` or `max_tokens`, for each prompt; what stops is not returned.

    Prompts are embeddings `[T, D]` (`VisionLanguageModel.embed`), each of its own length: they are padded on the left
    and masked, and a prompt's result does not depend on its neighbours. They are read `prefill_chunk` tokens at a time.
    Raises `BadInput` where a prompt and its reply would be longer than what the language model reads.
    """
    replies: list[list[int]] = [[] for _ in prompts]
    for row, token in stream(language, prompts, stop=stop, max_tokens=max_tokens, prefill_chunk=prefill_chunk):
        replies[row].append(token)
    return replies


def stream(
    language: LanguageModel,
    prompts: Sequence[Tensor],
    *,
    stop: Container[int],
    max_tokens: int,
    prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[tuple[int, int]]:
    """The same as it comes: (prompt, token), a step of all running prompts after another."""
    if not prompts:
        return
    x_BTD, real_BS = left_padded(prompts)
    longest = x_BTD.shape[1]
    if (tokens := longest + max_tokens) > (room := language.cfg.context):
        both = f"a prompt of {longest} tokens and a reply of up to {max_tokens} are {tokens} tokens"
        raise BadInput(f"{both}; the language model reads at most {room}")
    with torch.inference_mode():
        cache = KVCache(language.cfg, len(prompts), tokens, like=x_BTD)
        hidden_BD = language.prefill(x_BTD, cache, real_BS=real_BS, chunk=prefill_chunk)
    said: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts), device=x_BTD.device)
    for step in range(max_tokens):
        # Entered anew each step: a generator may be left off between two.
        with torch.inference_mode():
            next_B = _chosen(language, hidden_BD, rows, prompts, said)
            running = torch.tensor([token not in stop for token in next_B.tolist()], device=x_BTD.device)
            new = list(zip(rows[running].tolist(), next_B[running].tolist(), strict=True))
        for row, token in new:
            said[row].append(token)
            yield row, token
        if not new or step + 1 == max_tokens:
            return
        with torch.inference_mode():
            if len(new) < len(rows):
                rows, next_B, real_BS = rows[running], next_B[running], real_BS[running]
                cache.keep(running)
            real_BS = torch.cat([real_BS, real_BS.new_ones(len(rows), 1)], dim=1)
            hidden_BD = language.prefill(language.embedding(next_B[:, None]), cache, real_BS=real_BS)


def left_padded(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Prompts `[T, D]` as one batch `[B, T, D]`, filled on the left with zeros, and where it is real `[B, T]`."""
    x_BTD = pad_sequence(list(prompts), batch_first=True, padding_side="left")
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=x_BTD.device)
    places_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    return x_BTD, places_T >= x_BTD.shape[1] - lengths_B[:, None]


def _chosen(
    language: LanguageModel,
    hidden_BD: Tensor,
    rows_B: Tensor,
    prompts: Sequence[Tensor],
    said: Sequence[Sequence[int]],
) -> Tensor:
    """The next token of each running prompt `[B]`."""
    best = language.logits(hidden_BD).topk(2, dim=-1)
    next_B = best.indices[:, 0]
    for i in (best.values[:, 0] - best.values[:, 1] < NEAR_TIE).nonzero()[:, 0].tolist():
        row = int(rows_B[i])
        reply = language.embedding(torch.tensor(said[row], dtype=torch.long, device=hidden_BD.device))
        # Without a batch, padding or cache.
        alone_SD = torch.cat([prompts[row], reply])
        next_B[i] = language.logits(language.hidden(alone_SD[None])[:, -1]).argmax()
    return next_B
