"""CIDEr-D (Vedantam et al. 2015, section 7), as pycocoevalcap computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlm.metrics.score import Score, Tokenizer, corpus, ngrams, words

Gram = tuple[str, ...]


def cider(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    n: int = 4,
    *,
    sigma: float = 6.0,
    tokenizer: Tokenizer | None = None,
) -> Score:
    """CIDEr-D, equal to `pycocoevalcap.cider.cider.Cider`.

    The document frequency of an n-gram is the number of evaluated items of which some reference has it, so a value
    depends on the whole corpus and a corpus of one scores 0. Counts of the hypothesis are clipped, the length penalty
    compares bigram counts, and the mean over n and references is multiplied by 10.

    Args:
        references: for each item its reference captions, raw strings.
        hypotheses: one raw caption an item.
        n: the longest n-gram.
        sigma: width of the Gaussian length penalty.
        tokenizer: from a string to tokens; the PTB tokenizer by default.
    """
    counted = [
        (ngrams(words(item.hypothesis), n), [ngrams(words(r), n) for r in item.references])
        for item in corpus(references, hypotheses, tokenizer)
    ]
    frequency: dict[Gram, int] = {}
    for _, refs in counted:
        for gram in set().union(*refs):
            frequency[gram] = frequency.get(gram, 0) + 1
    log_items = math.log(len(counted))
    weight = {gram: log_items - math.log(count) for gram, count in frequency.items()}

    items = []
    for hypothesis, refs in counted:
        vector = _Vector(hypothesis, weight, log_items, n)
        total = sum(vector.similarity(_Vector(ref, weight, log_items, n), sigma) for ref in refs)
        items.append(10 * total / (n * len(refs)))
    return Score(sum(items) / len(items), items)


class _Vector:
    """TF-IDF of one caption: a mapping from n-grams and a norm for each n, and the number of bigrams as its length."""

    def __init__(self, counts: dict[Gram, int], weight: dict[Gram, float], unseen: float, n: int) -> None:
        self.values: list[dict[Gram, float]] = [{} for _ in range(n)]
        self.length = 0
        for gram, count in counts.items():
            self.values[len(gram) - 1][gram] = count * weight.get(gram, unseen)
            if len(gram) == 2:
                self.length += count
        self.norms = [math.sqrt(sum(v * v for v in values.values())) for values in self.values]

    def similarity(self, reference: _Vector, sigma: float) -> float:
        """The clipped cosine with a reference, summed over n, with the length penalty."""
        total = 0.0
        for values, others, norm, other in zip(self.values, reference.values, self.norms, reference.norms, strict=True):
            if norm and other:
                dot = sum(min(v, others[gram]) * others[gram] for gram, v in values.items() if gram in others)
                total += dot / (norm * other)
        return total * math.exp(-((self.length - reference.length) ** 2) / (2 * sigma**2))
