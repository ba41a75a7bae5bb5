"""Whether two runs differ, by how much, on which samples, and in what they were run differently.

The same samples are compared with each other (paired), which tells smaller differences than two separate intervals do
(Miller 2024, section 4.2). Where a run lacks samples of the other, the ones in both are compared - but not by scores
that depend on the whole set (`Figure.joint`), which mean something else in either run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm.errors import BadInput
from vlm.evaluation.comparing.comparison import Comparison, Differs, FigureComparison, Flip, TaskComparison
from vlm.evaluation.comparing.verdict import verdict
from vlm.evaluation.direction import direction
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, read_run, read_samples
from vlm.metrics.significance import PairedDifference, holm, paired_difference


def compare(folder_a: Path, folder_b: Path, flips: int = 10) -> Comparison:
    """Compare two folders of `vlm eval --output`; `flips` is how many changed samples a task shows at most.

    Raises `BadInput` where a folder or a file in it is no such thing, or a task names a sample twice.
    """
    (info_a, tasks_a), (info_b, tasks_b) = _run(folder_a), _run(folder_b)
    common = [task for task in tasks_a if task in tasks_b]
    compared = [_task(task, (folder_a, tasks_a[task]), (folder_b, tasks_b[task]), flips) for task in common]
    tested = {task.task: main.paired.p for task in compared if (main := task.main_figure) is not None and main.paired}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    fields = ("model", "weights", "version", "data")
    return Comparison(
        a=info_a,
        b=info_b,
        differs=_differing((name, getattr(info_a, name), getattr(info_b, name)) for name in fields),
        tasks=tuple(
            replace(task, p_of_all=adjusted.get(task.task), verdict=verdict(task, adjusted)) for task in compared
        ),
        only_a=tuple(task for task in tasks_a if task not in tasks_b),
        only_b=tuple(task for task in tasks_b if task not in tasks_a),
        unfinished_a=tuple(task for task in info_a.tasks if task not in tasks_a),
        unfinished_b=tuple(task for task in info_b.tasks if task not in tasks_b),
    )


def _run(folder: Path) -> tuple[RunInfo, dict[str, TaskResult]]:
    """A run and its finished tasks by the names of their folders."""
    info, results = read_run(folder)
    if not results:
        raise BadInput(f"{folder}: no finished task of {len(info.tasks)} ({', '.join(info.tasks) or 'none named'})")
    for task, result in results.items():
        for metric, figure in result.figures.items():
            if not math.isfinite(figure.value):
                raise BadInput(f"{folder / task / 'results.json'}: {metric} is {figure.value}; expected a number")
    return info, results


def _task(name: str, run_a: tuple[Path, TaskResult], run_b: tuple[Path, TaskResult], flips: int) -> TaskComparison:
    (folder_a, result_a), (folder_b, result_b) = run_a, run_b
    samples_a, samples_b = _samples(folder_a / name), _samples(folder_b / name)
    pairs = [(a, samples_b[key]) for key, a in samples_a.items() if key in samples_b]
    only_a, only_b = len(samples_a) - len(pairs), len(samples_b) - len(pairs)
    figures = [
        _figure(metric, result_a.figures[metric], result_b.figures[metric], pairs, whole=not (only_a or only_b))
        for metric in result_a.figures
        if metric in result_b.figures
    ]
    warnings = _warnings(pairs)
    if only_a or only_b:
        warnings.append(
            f"{only_a} samples only in A, {only_b} only in B: compared on the {len(pairs)} in both; "
            "a figure that is not paired is of its own run's samples"
        )
    missing = sorted(set(result_a.figures) ^ set(result_b.figures))
    if missing:
        warnings.append(f"only one run has these figures: {', '.join(missing)}")
    shown = [f for f in figures if f.paired and f.metric == result_a.main] or [f for f in figures if f.paired]
    key = result_a.figures[shown[0].metric].sample_score if shown else None
    return TaskComparison(
        task=name,
        main=result_a.main,
        verdict="",
        p_of_all=None,
        samples=len(pairs),
        only_a=only_a,
        only_b=only_b,
        differs=_differing(_settings(result_a, result_b)),
        warnings=tuple(warnings),
        figures=tuple(figures),
        outputs_changed=sum(a.output != b.output for a, b in pairs),
        flips=_flips(pairs, key, flips),
    )


def _samples(folder: Path) -> dict[str, Sample]:
    samples = list(read_samples(folder))
    counts = Counter(sample.id for sample in samples)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise BadInput(f"{folder / 'samples.jsonl'}: {len(twice)} ids more than once, such as {twice[0]!r}")
    for sample in samples:
        for key, score in sample.scores.items():
            if score is not None and not math.isfinite(score):
                raise BadInput(f"{folder / 'samples.jsonl'}: sample {sample.id!r}: {key} is {score}; expected a number")
    return {sample.id: sample for sample in samples}


def _figure(
    metric: str, a: Figure, b: Figure, pairs: Sequence[tuple[Sample, Sample]], *, whole: bool
) -> FigureComparison:
    """`whole` says whether the pairs are all samples of both runs."""
    if why := _unpaired(a, b, whole):
        return FigureComparison(metric, a.value, b.value, scale=a.scale, note=why)
    key, scale = str(a.sample_score), a.scale
    scored = [(first, second) for first, second in pairs if key in first.scores or key in second.scores]
    scores = [(first, x, y) for first, second in scored if (x := first.scores.get(key)) is not None
              and (y := second.scores.get(key)) is not None]  # fmt: skip
    unscored = len(scored) - len(scores)
    if not scores:
        return FigureComparison(metric, a.value, b.value, scale=scale, unscored=unscored, note="no sample in both")
    # A sample that names no cluster is one of its own.
    clusters = [sample.cluster or f"\0{sample.id}" for sample, _, _ in scores]
    of_a, of_b = [x for _, x, _ in scores], [y for _, _, y in scores]
    found = _scaled(paired_difference(of_a, of_b, clusters), scale, a.bounds)
    less = direction(metric) == "down"
    return FigureComparison(
        metric=metric,
        a=scale * math.fsum(of_a) / len(scores),
        b=scale * math.fsum(of_b) / len(scores),
        paired=found,
        better=found.worse if less else found.better,
        worse=found.better if less else found.worse,
        same=found.n - found.better - found.worse,
        unscored=unscored,
        scale=scale,
    )


def _scaled(found: PairedDifference, scale: float, bounds: tuple[float, float] | None) -> PairedDifference:
    """On the scale of the figure, and nothing in it larger than two values within its bounds can differ."""
    difference, detectable = found.difference.scaled(scale), found.detectable
    detectable = None if detectable is None else detectable * scale
    if bounds is not None:
        most = bounds[1] - bounds[0]
        difference = difference.within((-most, most))
        detectable = None if detectable is None or detectable > most else detectable
    return replace(found, difference=difference, detectable=detectable)


def _unpaired(a: Figure, b: Figure, whole: bool) -> str:
    """Why a figure of two runs cannot be compared sample by sample; empty where it can."""
    if a.sample_score is None and b.sample_score is None:
        return "no mean of samples"
    if (a.sample_score, a.scale) != (b.sample_score, b.scale):
        return "not made of the same scores"
    if not whole and (a.joint or b.joint):
        return "a sample's score depends on all of them, and these runs' samples are not the same"
    return ""


def _warnings(pairs: Sequence[tuple[Sample, Sample]]) -> list[str]:
    """The same id must stand for the same question."""
    found = []
    for what, meaning in (
        ("references", "these runs were not scored against the same answers"),
        ("inputs", "these runs did not see the same pictures"),
        ("prompt", "these runs were not asked the same"),
    ):
        other = [a.id for a, b in pairs if getattr(a, what) != getattr(b, what)]
        if other:
            found.append(f"{what} of {len(other)} of {len(pairs)} samples differ, such as {other[0]!r}: {meaning}")
    return found


def _settings(a: TaskResult, b: TaskResult) -> Iterable[tuple[str, Any, Any]]:
    """Everything of a task that may differ beside its scores."""
    for name in ("model", "weights", "prompt", "prompt_number", "main"):
        yield name, getattr(a, name), getattr(b, name)
    for name in (*a.settings, *(key for key in b.settings if key not in a.settings)):
        yield f"settings.{name}", a.settings.get(name), b.settings.get(name)
    card_a, card_b = a.card.model_dump(mode="json"), b.card.model_dump(mode="json")
    for name in card_a:
        yield f"card.{name}", card_a[name], card_b[name]
    yield "notes", [n for n in a.notes if n not in b.notes], [n for n in b.notes if n not in a.notes]


def _differing(values: Iterable[tuple[str, Any, Any]]) -> tuple[Differs, ...]:
    return tuple(Differs(what, a, b) for what, a, b in values if a != b)


def _flips(pairs: Sequence[tuple[Sample, Sample]], key: str | None, count: int) -> tuple[Flip, ...]:
    changes = []
    for a, b in pairs:
        x, y = (None, None) if key is None else (a.scores.get(key), b.scores.get(key))
        if x is not None and y is not None and x != y:
            changes.append(Flip(a.id, y - x, a.inputs, a.prompt, a.output, b.output, a.references))
    return tuple(sorted(changes, key=lambda flip: (-abs(flip.change), flip.id))[:count])
