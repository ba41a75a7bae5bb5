"""Beam search for captions: the plain loop, one prompt at a time.

K beams, T prompt tokens, D language width, V vocabulary. The semantics are those of transformers' `generate` with
`num_beams` (length penalty, `early_stopping=False`), after Graves (arXiv:1211.3711) and Wu et al. (arXiv:1609.08144,
equation 14, with the length alone as its penalty). A reply does not depend on other prompts: it is searched alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from vlm.errors import BadInput
from vlm.language.attention.kv_cache import KVCache
from vlm.language.decoder import LanguageModel

MOST = 32
"""Beams: each has a copy of the prompt's keys and values."""


class Hypothesis(NamedTuple):
    """A reply that ended, without what stopped it; its log-probability over its length, both with that token."""

    score: float
    tokens: list[int]


@torch.inference_mode()
def beam_search(
    language: LanguageModel,
    prompt_TD: Tensor,
    *,
    beams: int,
    stop: Collection[int],
    max_tokens: int,
    length_penalty: float = 1.0,
) -> list[int]:
    """The best reply that was found to a prompt of embeddings, without the token that stops it.

    Raises `BadInput` where prompt and reply would be longer than what the language model reads, and for a number of
    beams that is not 1 to 32.
    """
    check_beams(beams)
    if (tokens := len(prompt_TD) + max_tokens) > (room := language.cfg.context):
        both = f"a prompt of {len(prompt_TD)} tokens and a reply of up to {max_tokens} are {tokens} tokens"
        raise BadInput(f"{both}; the language model reads at most {room}")
    if max_tokens == 0:
        return []
    cache = KVCache(language.cfg, 1, tokens, like=prompt_TD)
    hidden_KD = language.prefill(prompt_TD[None], cache)
    running, scores_K = [list[int]()], prompt_TD.new_zeros(1, dtype=torch.float32)
    ended: list[Hypothesis] = []
    for length in range(1, max_tokens + 1):
        logprobs_KV = language.logits(hidden_KD).float().log_softmax(-1) + scores_K[:, None]
        # Beside every beam that stops there is another to go on with.
        best = logprobs_KV.flatten().topk(min(logprobs_KV.numel(), (1 + len(stop)) * beams))
        parents, tokens_ = best.indices // logprobs_KV.shape[1], best.indices % logprobs_KV.shape[1]
        going: list[int] = []
        for rank, (score, parent, token) in enumerate(
            zip(best.values.tolist(), parents.tolist(), tokens_.tolist(), strict=True)
        ):
            stops = token in stop
            if stops or length == max_tokens:
                if rank < beams:  # those behind are spare
                    ended.append(Hypothesis(score / length**length_penalty, running[parent] + [token] * (not stops)))
            elif len(going) < beams:
                going.append(rank)
        ended = sorted(ended, key=lambda one: -one.score)[:beams]
        if not going or (len(ended) == beams and best.values[going[0]] / length**length_penalty <= ended[-1].score):
            break
        running = [[*running[parents[rank]], int(tokens_[rank])] for rank in going]
        scores_K = best.values[going]
        cache.keep(parents[going])
        hidden_KD = language.prefill(language.embedding(tokens_[going][:, None]), cache)
    return max(ended, key=lambda one: one.score).tokens if ended else running[0]


def check_beams(beams: int) -> None:
    """Raises `BadInput` for a number of beams that cannot be searched with."""
    if not 1 <= beams <= MOST:
        raise BadInput(f"beams: expected 1 to {MOST}, got {beams}")
