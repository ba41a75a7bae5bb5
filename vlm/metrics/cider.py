"""CIDEr-D (Vedantam et al. 2015, section 7), as pycocoevalcap computes it.

Legend: C captions (all references, then all hypotheses), P places of words in their concatenation, G different n-grams,
E entries: an n-gram of a caption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlm.metrics.score import Score, Tokenizer, corpus, words

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
    items = corpus(references, hypotheses, tokenizer)
    captions = [words(r) for item in items for r in item.references] + [words(item.hypothesis) for item in items]
    refs = len(captions) - len(items)
    item_C = np.array([i for i, item in enumerate(items) for _ in item.references] + list(range(len(items))))
    similarity_R = sum((_cosine(entries, item_C, refs) for entries in _ngrams(captions, n)), np.zeros(refs))

    bigrams_C = np.array([max(len(caption) - 1, 0) for caption in captions]) if n > 1 else np.zeros(len(captions))
    longer_R = bigrams_C[:refs] - bigrams_C[refs:][item_C[:refs]]
    similarity_R *= np.exp(-(longer_R**2) / (2 * sigma**2))
    total, count = np.bincount(item_C[:refs], similarity_R), np.bincount(item_C[:refs])
    per_item = (10 * total / (n * count)).tolist()
    return Score(sum(per_item) / len(per_item), per_item)


class _Entries(NamedTuple):
    """The different n-grams of each caption for one n, in order of caption and then of n-gram, and their counts."""

    caption_E: Ints
    gram_E: Ints
    count_E: Ints
    grams: int


def _ngrams(captions: Sequence[Sequence[str]], longest: int) -> Iterator[_Entries]:
    """The n-grams of all captions for n from 1 to `longest`. An n-gram's number is made from the number of its first
    n - 1 words and its last word."""
    vocabulary: dict[str, int] = {}
    word_P = np.array([vocabulary.setdefault(w, len(vocabulary)) for caption in captions for w in caption], np.int64)
    caption_P = np.repeat(np.arange(len(captions)), [len(caption) for caption in captions])
    gram_P, grams = word_P, len(vocabulary)
    for n in range(1, longest + 1):
        if n > 1:
            whole_P = caption_P[: 1 - n] == caption_P[n - 1 :]
            longer_P = np.where(whole_P, gram_P[: len(whole_P)] * len(vocabulary) + word_P[n - 1 :], -1)
            found, gram_P = np.unique(longer_P, return_inverse=True)
            grams = len(found)
        else:
            whole_P = np.ones(len(word_P), dtype=bool)
        pairs, count_E = np.unique((caption_P[: len(whole_P)] * grams + gram_P)[whole_P], return_counts=True)
        yield _Entries(*np.divmod(pairs, max(grams, 1)), count_E, grams)


def _cosine(entries: _Entries, item_C: Ints, refs: int) -> Floats:
    """The clipped cosine of the TF-IDF of each reference and its item's hypothesis, for one n (equation 3)."""
    caption_E, gram_E, count_E, grams = entries
    captions, items = len(item_C), len(item_C) - refs
    ours = caption_E < refs  # in order of caption, so references come first
    documents = np.unique(item_C[caption_E[ours]] * grams + gram_E[ours])
    frequency_G = np.bincount(documents % max(grams, 1), minlength=grams)
    value_E = count_E * (math.log(items) - np.log(np.maximum(frequency_G, 1)))[gram_E]
    norm_C = np.sqrt(np.bincount(caption_E, value_E**2, minlength=captions))

    # each reference's entry beside the hypothesis's entry of the same n-gram, where it has one
    there = (caption_E[~ours] - refs) * grams + gram_E[~ours]
    here = item_C[caption_E[ours]] * grams + gram_E[ours]
    place = np.searchsorted(there, here).clip(max=max(len(there) - 1, 0))
    shared = there[place] == here if len(there) else np.zeros(len(here), dtype=bool)
    value, other = value_E[ours][shared], value_E[~ours][place[shared]]
    dot_R = np.bincount(caption_E[ours][shared], np.minimum(other, value) * value, minlength=refs)
    norm_R = norm_C[:refs] * norm_C[refs:][item_C[:refs]]
    return np.divide(dot_R, norm_R, out=np.zeros(refs), where=norm_R > 0)
