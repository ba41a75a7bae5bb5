"""Moment retrieval: when in a clip something happens, as QVHighlights scores it (Lei et al. 2021)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.figures import by_category, mean_figure
from vlm.evaluation.results import Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.heads.moments import WATCHED, moments
from vlm.media.open import Media
from vlm.media.video.sampling import load_clip
from vlm.metrics.video import THRESHOLDS, moment_retrieval


def run(job: Job) -> Outcome:
    """Of the first window recall at temporal IoU 0.5 and 0.7 and that IoU, and mean average precision, in percent."""
    queries = job.model.text_vectors([example.question or "" for example in job.examples])
    frames: dict[str, tuple[np.ndarray, list[float]]] = {}
    samples = []
    for number, (example, query) in enumerate(zip(job.examples, queries, strict=True), 1):
        windows, duration = _truth(job, example)
        if example.video not in frames:
            clip = load_clip(example.video or "", sampling=job.card.sampling or WATCHED)
            media = [Media((frame,)) for frame in clip.frames]
            frames[example.video or ""] = job.model.vectors_of(media), clip.times
        vectors_FS, times = frames[example.video or ""]
        found = moments(vectors_FS @ query, times, duration)
        score = moment_retrieval([found], [windows])
        samples.append(
            Sample(
                id=example.id,
                inputs=job.inputs(example),
                prompt=example.question or "",
                output=[{"item": f"{s:.1f}-{e:.1f} s", "score": round(value, 4)} for s, e, value in found[:5]],
                prediction=f"{found[0][0]:.1f}-{found[0][1]:.1f} s" if found else None,
                references=tuple(f"{start:g}-{end:g} s" for start, end in windows),
                scores={
                    "R1@0.5": score.recall_at_1[0.5],
                    "R1@0.7": score.recall_at_1[0.7],
                    "tIoU": score.mean_iou,
                    "mAP@0.5": score.average_precision[0.5],
                    "mAP": score.mean_average_precision,
                },
                cluster=job.cluster(example),
                category=job.category(example),
            )
        )
        job.progress(number)
    figures = {key: mean_figure(samples, key, scale=100.0) for key in samples[0].scores}
    seen = (job.card.sampling or WATCHED).model_dump_json()
    note = f"windows from the similarity of frames {seen}; IoU thresholds {THRESHOLDS[0]}-{THRESHOLDS[-1]}"
    categories = by_category(samples, dict.fromkeys(figures, 100.0))
    return Outcome(samples, "R1@0.5", figures, categories, notes=(note,))


def _truth(job: Job, example: Example) -> tuple[list[list[float]], float]:
    windows, duration = example.meta.get("windows"), example.meta.get("duration")
    if not example.video or not Path(example.video).is_file() or not windows or not duration:
        raise BadInput(f"benchmark {job.card.name}: query {example.id}: expected a video, windows and a duration")
    return [[float(a), float(b)] for a, b in windows], float(duration)
