"""The next token of a reply from its logits: told, weighed, narrowed down, drawn.

What is asked for is done in the order and with the meaning of transformers' logits processors (tested). V vocabulary,
K candidates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm.engine.request import Chance, Sampling, Token
from vlm.errors import BadInput, VlmError

MOST_ALTERNATIVES = 20
"""As many as OpenAI tells."""
_WORD = 2**64 - 1


def check(sampling: Sampling, vocab_size: int) -> None:
    """Raise `BadInput` for what no token can be chosen by."""
    rules = (
        ("temperature", sampling.temperature, "a number of at least 0", sampling.temperature >= 0),
        ("top_k", sampling.top_k, "a number of at least 1", sampling.top_k is None or sampling.top_k >= 1),
        ("top_p", sampling.top_p, "a number above 0 and up to 1", 0 < sampling.top_p <= 1),
        ("min_p", sampling.min_p, "a number from 0 to 1", 0 <= sampling.min_p <= 1),
        ("repetition_penalty", sampling.repetition_penalty, "a number above 0", sampling.repetition_penalty > 0),
        ("presence_penalty", sampling.presence_penalty, "a number", True),
        ("frequency_penalty", sampling.frequency_penalty, "a number", True),
        ("alternatives", sampling.alternatives, f"a number from 0 to {MOST_ALTERNATIVES}",
         sampling.alternatives is None or 0 <= sampling.alternatives <= MOST_ALTERNATIVES),
    )  # fmt: skip
    for name, value, expected, holds in rules:
        if not holds or not math.isfinite(value or 0):
            raise BadInput(f"{name}: expected {expected}, got {value}")
    for token, bias in sampling.bias.items():
        if not 0 <= token < vocab_size:
            raise BadInput(f"bias: expected tokens from 0 to {vocab_size - 1}, got {token}")
        if not math.isfinite(bias):
            raise BadInput(f"bias: expected a number for token {token}, got {bias}")


def chosen(
    logits_V: Tensor,
    sampling: Sampling,
    said: Sequence[int],
    prompt: Sequence[int],
    place: int,
    choice: int,
    seed: int,
    allowed_V: np.ndarray | None,
) -> Token:
    """The token at `place` of reply number `choice`, behind the tokens of `prompt` and those `said` so far.

    `allowed_V` is true at what may come. The draw depends on `seed`, `choice` and `place` alone. Raises `VlmError`
    where nothing may come, or logits are no numbers.
    """
    token = likely(logits_V, sampling, said, prompt, place, choice, seed, allowed_V)
    return _told(logits_V, token, sampling.alternatives)


def likely(
    logits_V: Tensor,
    sampling: Sampling,
    said: Sequence[int],
    prompt: Sequence[int],
    place: int,
    choice: int,
    seed: int,
    allowed_V: np.ndarray | None = None,
) -> int:
    """The same, and nothing is told of it: what one model's logits say that another will choose, draws included."""
    scores_V = _weighed(logits_V, sampling, said, prompt)
    if allowed_V is not None:
        scores_V = scores_V.masked_fill(~torch.from_numpy(allowed_V).to(scores_V.device), -math.inf)
    token = int(scores_V.argmax())  # the first of several, and of what is no number
    if not math.isfinite(best := float(scores_V[token])):
        raise VlmError(f"place {place} of the reply: expected a token that may come, got logits of at most {best}")
    if sampling.temperature > 0:
        token = _drawn(*candidates(scores_V, sampling), seed, choice, place)
    return token


def candidates(scores_V: Tensor, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens `[K]` that are drawn from, by their ids, and their chances `[K]`, float64, of sum 1."""
    if sampling.top_k is not None and sampling.top_k < len(scores_V):
        places_K = (scores_V >= scores_V.topk(sampling.top_k).values[-1]).nonzero()[:, 0]
        scores_V = scores_V[places_K]
        ids_K = places_K.cpu().numpy()
    else:
        ids_K = np.arange(len(scores_V))
    z_K = scores_V.double()
    p_K = ((z_K - z_K.max()) / sampling.temperature).softmax(dim=0).cpu().numpy()
    if sampling.top_p < 1:
        kept_K = _nucleus(p_K, sampling.top_p)
        ids_K, p_K = ids_K[kept_K], p_K[kept_K]
    if sampling.min_p > 0:
        kept_K = p_K >= sampling.min_p * p_K.max()
        ids_K, p_K = ids_K[kept_K], p_K[kept_K]
    return ids_K, p_K / p_K.sum()


def _weighed(logits_V: Tensor, sampling: Sampling, said: Sequence[int], prompt: Sequence[int]) -> Tensor:
    """Logits with bias and penalties; where there are none, as they are."""
    repeats = sampling.repetition_penalty != 1
    counts = sampling.presence_penalty or sampling.frequency_penalty
    if not (sampling.bias or repeats or counts):
        return logits_V
    scores_V, device = logits_V.float().clone(), logits_V.device
    if sampling.bias:
        ids_K = torch.tensor(list(sampling.bias), device=device)
        scores_V[ids_K] += torch.tensor(list(sampling.bias.values()), device=device)
    if repeats:
        # Image slots are no words of the vocabulary.
        seen = [token for token in {*prompt, *said} if 0 <= token < len(scores_V)]
        ids_K = torch.tensor(seen, dtype=torch.long, device=device)
        z_K, penalty = scores_V[ids_K], sampling.repetition_penalty
        scores_V[ids_K] = torch.where(z_K < 0, z_K * penalty, z_K / penalty)
    if counts and said:
        times = Counter(said)
        ids_K = torch.tensor(list(times), device=device)
        times_K = torch.tensor(list(times.values()), device=device)
        scores_V[ids_K] -= sampling.presence_penalty + sampling.frequency_penalty * times_K
    return scores_V


def _nucleus(p_K: np.ndarray, mass: float) -> np.ndarray:
    """Whether each is of the likeliest that have this mass together; of equal ones the first are."""
    falling_K = np.sort(p_K)[::-1]
    before_K = falling_K.cumsum() - falling_K
    # The last sum may fall short of the mass by rounding, and the first one is never kept by it alone.
    count = max(1, int(before_K.searchsorted(mass)))
    least = falling_K[count - 1]
    kept_K = p_K > least
    kept_K[(p_K == least).nonzero()[0][: count - kept_K.sum()]] = True
    return kept_K


def _drawn(ids_K: np.ndarray, p_K: np.ndarray, seed: int, choice: int, place: int) -> int:
    """By the inverse of the cumulative chances, at a number that a counter leads to, whatever was drawn before."""
    bits = np.random.Philox(key=seed & _WORD, counter=[0, place, choice, 0])
    sums_K = p_K.cumsum()
    # Below the last sum even after rounding, so that there is always a token, and one that has a chance.
    point = min(np.random.Generator(bits).random() * sums_K[-1], np.nextafter(sums_K[-1], 0))
    return int(ids_K[sums_K.searchsorted(point, side="right")])


def _told(logits_V: Tensor, token: int, alternatives: int | None) -> Token:
    if alternatives is None:
        return Token(token)
    logprobs_V = logits_V.float().log_softmax(dim=0)
    chances = tuple(Chance(int(other), float(logprobs_V[other])) for other in _best(logprobs_V, alternatives))
    return Token(token, float(logprobs_V[token]), chances)


def _best(x_V: Tensor, count: int) -> Tensor:
    """The places of the `count` greatest, the greatest first; of equal ones the first."""
    if not count:
        return torch.empty(0, dtype=torch.long)
    places_K = (x_V >= x_V.topk(min(count, len(x_V))).values[-1]).nonzero()[:, 0]
    return places_K[x_V[places_K].sort(descending=True, stable=True).indices[:count]]
