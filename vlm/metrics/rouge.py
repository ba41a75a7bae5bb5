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
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]
