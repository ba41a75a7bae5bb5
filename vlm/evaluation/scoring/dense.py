"""Scores of dense captions' files, in the form of ActivityNet Captions (Krishna et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlm.errors import BadInput
from vlm.evaluation.scoring.files import Problems, load_all
from vlm.evaluation.scoring.scores import Scored
from vlm.metrics.caption import NotAvailable, Score, bleu, cider, meteor, rouge_l, tokenize
from vlm.metrics.dense_captioning import Metric, Moment, dense_captioning, soda_c


def score_dense(
    hypotheses: Path,
    references: Sequence[Path],
    *,
    with_soda: bool = False,
    tell: Callable[[str], None] = lambda metric: None,
) -> Scored:
    """`{"results": {video: [{"sentence", "timestamp"}]}}` against files, one an annotator, of
    `{video: {"timestamps", "sentences"}}`: each caption metric's mean over the IoU thresholds as densevid_eval has it,
    precision and recall of the moments, as fractions. SODA_c, by METEOR in Java, is computed when asked for.

    A video without a prediction counts as one with nothing predicted, of SODA not at all, as in the two references.
    """
    problems = Problems()
    given, *truths = load_all(hypotheses, *references)
    said = _predicted(given, str(hypotheses), problems)
    wanted: dict[str, list[list[Moment]]] = {}
    for content, path in zip(truths, references, strict=True):
        for video, moments in _annotated(content, str(path), problems).items():
            wanted.setdefault(video, []).append(moments)
    if not problems.lines:
        files = ", ".join(map(str, references))
        problems.some([v for v in said if v not in wanted], str(hypotheses), f"{{n}} videos unknown to {files}")
        if not wanted:
            problems.lines.append(f"{files}: no videos in it; expected at least one")
    problems.check()
    predicted, annotated = [said.get(video, []) for video in wanted], list(wanted.values())
    split = lru_cache(None)(tokenize)
    metrics: dict[str, Any] = {}
    by_name: dict[str, Metric] = {
        "Bleu_4": lambda r, h: bleu(r, h, tokenizer=split)[3],
        "ROUGE_L": lambda r, h: rouge_l(r, h, tokenizer=split),
        "CIDEr": lambda r, h: cider(r, h, tokenizer=split),
    }
    for name, metric in by_name.items():
        tell(name)
        found = dense_captioning(predicted, annotated, metric)
        metrics[name] = found.mean_score
    for name, shares in (("precision", found.precision), ("recall", found.recall)):
        metrics |= {f"{name}@{threshold}": share for threshold, share in shares.items()}
    missing = [video for video in wanted if video not in said]
    warnings = [f"{len(missing)} of {len(wanted)} videos have no prediction (first: {missing[0]!r})"] if missing else []
    if not with_soda:
        return Scored(metrics, not_available={"SODA_c": "not asked for (--soda; it runs on Java)"}, warnings=warnings)
    tell("SODA_c")
    try:
        metrics["SODA_c"] = soda_c([said[v] for v in said], [wanted[v] for v in said], _meteor)
    except _Absent as error:
        return Scored(metrics, not_available={"SODA_c": str(error)}, warnings=warnings)
    return Scored(metrics, warnings=warnings)


class _Absent(Exception):
    pass


def _meteor(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Score:
    found = meteor(references, hypotheses)
    if isinstance(found, NotAvailable):
        raise _Absent(found.reason)
    return found


def _predicted(content: Any, path: str, problems: Problems) -> dict[str, list[Moment]]:
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise BadInput(f"{path}: expected an object with `results`, an object of videos")
    found, wrong = {}, []
    for video, rows in results.items():
        dicts = [row if isinstance(row, dict) else {} for row in (rows if isinstance(rows, list) else [None])]
        moments = [_moment(row.get("timestamp"), row.get("sentence")) for row in dicts]
        found[video] = [moment for moment in moments if moment is not None]
        wrong += [video] * (len(found[video]) < len(moments))
    problems.some(wrong, path, f"{{n}} of {len(results)} videos whose moments lack a sentence or a timestamp of two")
    return found


def _annotated(content: Any, path: str, problems: Problems) -> dict[str, list[Moment]]:
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected an object of videos")
    found, wrong = {}, []
    for video, row in content.items():
        times, sentences = (row.get(key) if isinstance(row, dict) else None for key in ("timestamps", "sentences"))
        moments: list[Moment | None] = [None]
        if isinstance(times, list) and isinstance(sentences, list) and len(times) == len(sentences) > 0:
            moments = [_moment(t, s) for t, s in zip(times, sentences, strict=True)]
        found[video] = [moment for moment in moments if moment is not None]
        wrong += [video] * (len(found[video]) < len(moments))
    problems.some(wrong, path, f"{{n}} of {len(content)} videos without as many timestamps of two as sentences")
    return found


def _moment(times: Any, sentence: Any) -> Moment | None:
    if not isinstance(sentence, str) or not isinstance(times, list) or len(times) != 2:
        return None
    numbers = [float(t) for t in times if isinstance(t, int | float) and not isinstance(t, bool) and math.isfinite(t)]
    return (numbers[0], numbers[1], sentence) if len(numbers) == 2 else None
