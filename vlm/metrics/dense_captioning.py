"""Dense video captioning: captions with times against captions with times (Krishna et al. 2017, section 5.2).

A moment is (start, end, caption), times in seconds. Annotators each wrote a list of moments for a video; ActivityNet
Captions has two annotators, whose moments are not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlm.errors import BadInput
from vlm.metrics.score import Score
from vlm.metrics.video import soda_alignment, temporal_iou

Moment = tuple[float, float, str]
Metric = Callable[[Sequence[Sequence[str]], Sequence[str]], Score]
"""(references, hypotheses) -> score, as `cider` and `rouge_l`; for BLEU-4 `lambda r, h: bleu(r, h)[3]`."""

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
NOTHING = "qzxjvkwpqzxjvk"
"""The reference caption of a moment that overlaps with none: a word that no caption has."""


@dataclass(frozen=True)
class DenseCaptioning:
    """By IoU threshold: the caption score, and how many moments were proposed rightly and found. Fractions."""

    score: dict[float, float]
    mean_score: float
    precision: dict[float, float]
    recall: dict[float, float]


def dense_captioning(
    predicted: Sequence[Sequence[Moment]],
    annotated: Sequence[Sequence[Sequence[Moment]]],
    metric: Metric,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    most: int = 1000,
    ascii_only: bool = True,
) -> DenseCaptioning:
    """Equal to `evaluate.py` of densevid_eval (its version of 2018) with `metric` in METEOR's place.

    At each threshold a predicted caption is paired with every annotated one whose IoU reaches it; a caption without any
    is paired with nonsense and so scores nothing, but counts. A video's score is the metric's corpus value over its
    pairs (CIDEr's document frequencies are the video's own), 0 where nothing was predicted, and the figure is the mean
    over the videos. A moment is rightly proposed, or found, if some IoU is *more* than the threshold; of several
    annotators the one counts who gives the video's best precision, and best recall.

    The nonsense is drawn at random there, so a score moves a little from run to run; here it is always `NOTHING`.

    Args:
        predicted: for each video its moments; the first `most` count.
        annotated: for each video its annotators' lists of moments, at least one and none empty.
        metric: scores raw captions against references.
        thresholds: of temporal IoU.
        most: predicted moments a video that count.
        ascii_only: replace every character outside ASCII by a blank first, as the reference does.
    """
    if len(predicted) != len(annotated) or not annotated:
        raise BadInput(f"{len(predicted)} predictions for {len(annotated)} videos; expected one each and at least one")
    if not thresholds:
        raise BadInput("no thresholds; expected at least one")
    for i, annotators in enumerate(annotated):
        if not annotators or not all(annotators):
            raise BadInput(f"video {i} has an annotator without moments or none at all; expected at least one moment")
    clean = _ascii if ascii_only else str
    predicted = [[(start, end, clean(caption)) for start, end, caption in moments[:most]] for moments in predicted]
    score, precision, recall = {}, {}, {}
    for t in thresholds:
        videos = list(zip(predicted, annotated, strict=True))
        score[t] = sum(_score(moments, truth, metric, t, clean) for moments, truth in videos) / len(videos)
        shares = [_found(moments, truth, t) for moments, truth in videos]
        precision[t] = sum(p for p, _ in shares) / len(shares)
        recall[t] = sum(r for _, r in shares) / len(shares)
    return DenseCaptioning(score, sum(score.values()) / len(score), precision, recall)


def soda_c(
    predicted: Sequence[Sequence[Moment]],
    annotated: Sequence[Sequence[Sequence[Moment]]],
    metric: Metric,
    *,
    ascii_only: bool = True,
) -> float:
    """SODA_c (Fujita et al. 2020): the F1 of the best alignment in order, by IoU times caption score, over all videos.

    Equal to `soda.py` of its authors with `metric` in METEOR's place: what a video's annotators wrote is one list by
    time, and totals and counts are summed over the videos. `metric` is asked once, for all pairs of moments of all
    videos, and must score each by itself (METEOR does, CIDEr does not). A video without predicted moments counts.
    """
    clean = _ascii if ascii_only else str
    videos = []
    for moments, annotators in zip(predicted, annotated, strict=True):
        truth = [moment for annotator in annotators for moment in annotator]
        videos.append((sorted(moments, key=_start), sorted(truth, key=_start)))
    pairs = [(p, g) for moments, truth in videos for g in truth for p in moments]
    if not pairs:
        return 0.0
    scores = iter(metric([[clean(g[2])] for _, g in pairs], [clean(p[2]) for p, _ in pairs]).per_item)
    total = 0.0
    for moments, truth in videos:
        table_GP = [[temporal_iou(p[:2], g[:2]) * next(scores) for p in moments] for g in truth]
        total += soda_alignment(table_GP).score if moments and truth else 0.0
    return 2 * total / sum(len(moments) + len(truth) for moments, truth in videos)


def _start(moment: Moment) -> float:
    return moment[0]


def _score(
    moments: Sequence[Moment],
    annotators: Sequence[Sequence[Moment]],
    metric: Metric,
    threshold: float,
    clean: Callable[[str], str],
) -> float:
    references, hypotheses = [], []
    for moment in moments:
        near = [clean(m[2]) for truth in annotators for m in truth if temporal_iou(moment[:2], m[:2]) >= threshold]
        for caption in near or [NOTHING]:
            references.append([caption])
            hypotheses.append(moment[2])
    return metric(references, hypotheses).value if hypotheses else 0.0


def _found(moments: Sequence[Moment], annotators: Sequence[Sequence[Moment]], threshold: float) -> tuple[float, float]:
    precision = recall = 0.0
    for truth in annotators:
        hits = [
            (p, g)
            for p, moment in enumerate(moments)
            for g, m in enumerate(truth)
            if temporal_iou(moment[:2], m[:2]) > threshold
        ]
        if hits:
            precision = max(precision, len({p for p, _ in hits}) / len(moments))
            recall = max(recall, len({g for _, g in hits}) / len(truth))
    return precision, recall


def _ascii(text: str) -> str:
    return "".join(c if ord(c) < 128 else " " for c in text)
