"""ROUGE-L for captions (Lin 2004, section 3), as pycocoevalcap computes it."""

from __future__ import annotations

from collections.abc import Sequence

from vlm.metrics.score import Score, Tokenizer, corpus


def rouge_l(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    *,
    beta: float = 1.2,
    tokenizer: Tokenizer | None = None,
) -> Score:
    """F-measure of the longest common subsequence, equal to `pycocoevalcap.rouge.rouge.Rouge`.

    Equations 2 to 4 of the paper, except that the best precision and the best recall are taken over the references
    separately, so the two may come from different ones. The value is the mean over the items. An empty caption counts
    as one empty word, as in the reference: it scores 0, or 1 where a reference is empty too.
    """
    items = []
    for item in corpus(references, hypotheses, tokenizer):
        hypothesis = item.hypothesis or [""]
        precision = recall = 0.0
        for reference in (r or [""] for r in item.references):
            common = longest_common_subsequence(hypothesis, reference)
            precision = max(precision, common / len(hypothesis))
            recall = max(recall, common / len(reference))
        both = precision and recall
        items.append((1 + beta**2) * precision * recall / (recall + beta**2 * precision) if both else 0.0)
    return Score(sum(items) / len(items), items)


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest sequence of tokens that occurs in both in order, with gaps allowed."""
    # A row of the table is one integer whose zero bits say where it goes up (Hyyrö 2004).
    places: dict[str, int] = {}
    for i, x in enumerate(a):
        places[x] = places.get(x, 0) | 1 << i
    every = (1 << len(a)) - 1
    row = every
    for y in b:
        matched = row & places.get(y, 0)
        row = (row + matched | row - matched) & every
    return len(a) - row.bit_count()
