"""BLEU for captions (Papineni et al. 2002), as pycocoevalcap computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlm.metrics.score import Score, Tokenizer, corpus, ngrams, words

_TINY, _SMALL = 1e-15, 1e-9  # the reference's: a zero count stays a (tiny) factor instead of making the log undefined


def bleu(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], n: int = 4, *, tokenizer: Tokenizer | None = None
) -> tuple[Score, ...]:
    """BLEU-1 to BLEU-n, equal to `pycocoevalcap.bleu.bleu.Bleu`.

    Equations 1 to 3 of the paper with counts and lengths summed over the corpus (so a value is not the mean of its
    `per_item`), clipped by the most any one reference has, uniform weights, and the brevity penalty against the
    reference length closest to the hypothesis, the shorter on a tie. There is no smoothing beyond two small constants:
    a perfect caption scores 1 - 1e-9 or so, and one without a common 4-gram a few millionths.

    Args:
        references: for each item its reference captions, raw strings.
        hypotheses: one raw caption an item.
        n: the longest n-gram.
        tokenizer: from a string to tokens; the PTB tokenizer by default.

    Returns:
        `n` scores, of 1-grams to n-grams.
    """
    sum_correct, sum_guess, sum_length, sum_closest = [0] * n, [0] * n, 0, 0
    per_item: list[list[float]] = [[] for _ in range(n)]
    for item in corpus(references, hypotheses, tokenizer):
        hypothesis = words(item.hypothesis)
        ceiling: dict[tuple[str, ...], int] = {}
        lengths = []
        for reference in map(words, item.references):
            lengths.append(len(reference))
            for gram, count in ngrams(reference, n).items():
                ceiling[gram] = max(ceiling.get(gram, 0), count)
        length = len(hypothesis)
        closest = min((abs(r - length), r) for r in lengths)[1]
        correct, guess = [0] * n, [max(0, length - k) for k in range(n)]
        for gram, count in ngrams(hypothesis, n).items():
            correct[len(gram) - 1] += min(count, ceiling.get(gram, 0))
        for k, value in enumerate(_bleu(correct, guess, length, closest)):
            per_item[k].append(value)
            sum_correct[k] += correct[k]
            sum_guess[k] += guess[k]
        sum_length += length
        sum_closest += closest
    values = _bleu(sum_correct, sum_guess, sum_length, sum_closest)
    return tuple(Score(value, items) for value, items in zip(values, per_item, strict=True))


def _bleu(correct: list[int], guess: list[int], length: int, closest: int) -> list[float]:
    ratio = (length + _TINY) / (closest + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    values, product = [], 1.0
    for k, (right, made) in enumerate(zip(correct, guess, strict=True)):
        product *= (right + _TINY) / (made + _SMALL)
        values.append(product ** (1 / (k + 1)) * penalty)
    return values
