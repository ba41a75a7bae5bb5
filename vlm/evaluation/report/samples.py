"""Which samples a report shows, in which order, and which of them were right."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from vlm.evaluation.direction import direction, is_rank
from vlm.evaluation.results import Sample, TaskResult

SEED = 0


def value(sample: Sample, score: str | None) -> float | None:
    """A sample's score, or None where it has none or it is not finite."""
    found = sample.scores.get(score) if score is not None else None
    return found if found is not None and math.isfinite(found) else None


def score_names(samples: Sequence[Sample]) -> list[str]:
    """Every score that some sample has, in the order they first appear."""
    return list(dict.fromkeys(name for sample in samples for name in sample.scores if value(sample, name) is not None))


def default_score(result: TaskResult, samples: Sequence[Sample]) -> str | None:
    """The score by which samples are sorted at first: a retrieval's rank, else what the main figure is the mean of."""
    names = score_names(samples)
    main = result.figures[result.main].sample_score
    ranks = [name for name in names if is_rank(name)] if result.card.kind == "retrieval" else []
    judged = [name for name in names if direction(name) != "none"]
    return ranks[0] if ranks else main if main in names else judged[0] if judged else None


def ordered(samples: Sequence[Sample], score: str, *, best: bool) -> list[int]:
    """The positions of the samples that have the score, worst (or best) first.

    Among equals the ones the model was surest of come first: a sure mistake is the more telling one.
    """
    sign = -1 if (direction(score) == "down") != best else 1
    rows = [(sign * found, i) for i, sample in enumerate(samples) if (found := value(sample, score)) is not None]
    return [i for _, i in sorted(rows, key=lambda row: (row[0], -(value(samples[row[1]], "confidence") or 0), row[1]))]


def choose(samples: Sequence[Sample], score: str | None, most: int) -> list[int]:
    """About `most` positions: half the worst, half the best, and a quarter more at random; interleaved, no repeats.

    Samples without the score (the other direction of a retrieval) are chosen by their own first score, in proportion.
    """
    if len(samples) <= most:
        return list(range(len(samples)))
    groups: dict[str | None, int] = {}
    for sample in samples:
        key = score if value(sample, score) is not None else _own_score(sample)
        groups[key] = groups.get(key, 0) + 1
    chosen: list[int] = []
    for key, count in groups.items():
        if key is None:
            continue
        half = max(1, most * count // len(samples) // 2)
        members = [i for i in ordered(samples, key, best=False) if key == score or value(samples[i], score) is None]
        front = {
            i: None for pair in zip(members[:half], _last(samples, key, members, half), strict=False) for i in pair
        }
        chosen += front
    drawn = random.Random(SEED).sample(range(len(samples)), max(1, most // 4))
    return list(dict.fromkeys([*chosen, *drawn]))


def _own_score(sample: Sample) -> str | None:
    return next((k for k in sample.scores if direction(k) != "none" and value(sample, k) is not None), None)


def _last(samples: Sequence[Sample], key: str, members: list[int], half: int) -> list[int]:
    inside = set(members)
    return [i for i in ordered(samples, key, best=True) if i in inside][:half]


def verdict(result: TaskResult, sample: Sample, score: str | None) -> int | None:
    """2 right, 1 partly, 0 wrong; None where a sample is not one or the other (a caption)."""
    found = value(sample, score)
    if found is None or score is None or result.card.kind == "caption":
        return None
    if is_rank(score):
        return 2 if found <= 1 else 0
    if not 0 <= found <= 1:
        return None
    return 2 if found == 1 else 0 if found == 0 else 1
