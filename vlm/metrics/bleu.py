"""BLEU for captions (Papineni et al. 2002), as pycocoevalcap computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    rows = bleu_counts(references, hypotheses, n, tokenizer=tokenizer)
    items = [bleu_of(row) for row in rows]
    values = bleu_of(rows.sum(axis=0))
    return tuple(Score(value, [item[k] for item in items]) for k, value in enumerate(values))


def bleu_counts(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], n: int = 4, *, tokenizer: Tokenizer | None = None
) -> NDArray[np.int64]:
    """What BLEU sums over a corpus, `[N, 2 n + 2]`: correct and made n-grams of each n, length, closest length."""
    rows = []
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
        rows.append([*correct, *guess, length, closest])
    return np.array(rows, dtype=np.int64)


def bleu_of(counts: ArrayLike) -> list[float]:
    """BLEU-1 to BLEU-n of summed counts `[2 n + 2]`."""
    *grams, length, closest = np.asarray(counts).tolist()
    n = len(grams) // 2
    correct, guess = grams[:n], grams[n:]
    ratio = (length + _TINY) / (closest + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    values, product = [], 1.0
    for k, (right, made) in enumerate(zip(correct, guess, strict=True)):
        product *= (right + _TINY) / (made + _SMALL)
        values.append(product ** (1 / (k + 1)) * penalty)
    return values
