"""Whether two runs differ, by how much, on which samples, and in what they were run differently.

The same samples are compared with each other (paired), which tells smaller differences than two separate intervals do
(Miller 2024, section 4.2). Where a run lacks samples of the other, the ones in both are compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm.errors import BadInput
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, read_run, read_samples
from vlm.metrics.statistics import Interval, PairedDifference, holm, paired_difference

ALPHA = 0.05
LOWER_IS_BETTER = ("rank",)
"""Words in the names of figures that are the better the lower they are."""


@dataclass(frozen=True)
class Differs:
    """Something that is not alike in both runs."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Flip:
    """A sample whose score changed; `change` is B minus A of one sample, not scaled."""

    id: str
    change: float
    inputs: dict[str, Any]
    prompt: str
    a: Any
    b: Any
    references: tuple[str, ...]


@dataclass(frozen=True)
class FigureComparison:
    """One figure in both runs, on the scale it is published in."""

    metric: str
    a: float
    """Over the samples in both runs where there is a pair; else as the run has it."""
    b: float
    paired: PairedDifference | None = None
    """B minus A; None where the figure is no mean of samples."""
    better: int = 0
    """Samples where B does better; unlike `paired.better` it minds figures of which less is better."""
    worse: int = 0
    same: int = 0
    unscored: int = 0
    """Samples in both runs that one of them has no score of."""
    scale: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class TaskComparison:
    task: str
    main: str
    verdict: str
    p_of_all: float | None
    """The main figure's p counting that several tasks are compared (Holm); None where it has none."""
    samples: int
    """In both runs."""
    only_a: int
    only_b: int
    differs: tuple[Differs, ...]
    warnings: tuple[str, ...]
    figures: tuple[FigureComparison, ...]
    outputs_changed: int
    flips: tuple[Flip, ...]
    """The most changed samples by the main figure, or the first that is a mean of samples."""


@dataclass(frozen=True)
class Comparison:
    a: RunInfo
    b: RunInfo
    differs: tuple[Differs, ...]
    tasks: tuple[TaskComparison, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unfinished_a: tuple[str, ...]
    unfinished_b: tuple[str, ...]


def compare(folder_a: Path, folder_b: Path, flips: int = 10) -> Comparison:
    """Compare two folders of `vlm eval --output`; `flips` is how many changed samples a task shows at most.

    Raises `BadInput` where a folder or a file in it is no such thing, or a task names a sample twice.
    """
    (info_a, tasks_a), (info_b, tasks_b) = _run(folder_a), _run(folder_b)
    common = [task for task in tasks_a if task in tasks_b]
    compared = [_task(task, (folder_a, tasks_a[task]), (folder_b, tasks_b[task]), flips) for task in common]
    tested = {task.task: main.paired.p for task in compared if (main := _main(task)) is not None and main.paired}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    fields = ("model", "weights", "version", "data")
    return Comparison(
        a=info_a,
        b=info_b,
        differs=_differing((name, getattr(info_a, name), getattr(info_b, name)) for name in fields),
        tasks=tuple(
            replace(task, p_of_all=adjusted.get(task.task), verdict=_verdict(task, adjusted)) for task in compared
        ),
        only_a=tuple(task for task in tasks_a if task not in tasks_b),
        only_b=tuple(task for task in tasks_b if task not in tasks_a),
        unfinished_a=tuple(task for task in info_a.tasks if task not in tasks_a),
        unfinished_b=tuple(task for task in info_b.tasks if task not in tasks_b),
    )


def number(value: float, scale: float = 1.0) -> str:
    """As many digits as mean something: two of a percentage, four of a fraction."""
    return f"{value:,.2f}" if abs(scale) >= 10 else f"{value:,.4f}"


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def spoken(found: Interval, scale: float) -> str:
    """ "1.20 (0.30 to 2.10)", without the brackets where there is no interval."""
    if found.low is None or found.high is None:
        return number(found.value, scale)
    return f"{number(found.value, scale)} ({number(found.low, scale)} to {number(found.high, scale)})"


def _run(folder: Path) -> tuple[RunInfo, dict[str, TaskResult]]:
    """A run and its finished tasks by the names of their folders."""
    info, results = read_run(folder)
    finished = [task for task in info.tasks if (folder / task / "results.json").is_file()]
    if not results:
        raise BadInput(f"{folder}: no finished task of {len(info.tasks)} ({', '.join(info.tasks) or 'none named'})")
    for task, result in zip(finished, results, strict=True):
        for metric, figure in result.figures.items():
            if not math.isfinite(figure.value):
                raise BadInput(f"{folder / task / 'results.json'}: {metric} is {figure.value}; expected a number")
    return info, dict(zip(finished, results, strict=True))


def _task(name: str, run_a: tuple[Path, TaskResult], run_b: tuple[Path, TaskResult], flips: int) -> TaskComparison:
    (folder_a, result_a), (folder_b, result_b) = run_a, run_b
    samples_a, samples_b = _samples(folder_a / name), _samples(folder_b / name)
    pairs = [(a, samples_b[key]) for key, a in samples_a.items() if key in samples_b]
    figures = [
        _figure(metric, result_a.figures[metric], result_b.figures[metric], pairs)
        for metric in result_a.figures
        if metric in result_b.figures
    ]
    only_a, only_b = len(samples_a) - len(pairs), len(samples_b) - len(pairs)
    warnings = _warnings(pairs)
    if only_a or only_b:
        warnings.append(f"{only_a} samples only in A, {only_b} only in B: compared on the {len(pairs)} in both")
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


def _figure(metric: str, a: Figure, b: Figure, pairs: Sequence[tuple[Sample, Sample]]) -> FigureComparison:
    if a.sample_score is None or (a.sample_score, a.scale) != (b.sample_score, b.scale):
        note = "" if a.sample_score is None and b.sample_score is None else "not made of the same scores"
        return FigureComparison(metric, a.value, b.value, scale=a.scale, note=note or "no mean of samples")
    key, scale = a.sample_score, a.scale
    scores = [(first, x, y) for first, second in pairs if (x := first.scores.get(key)) is not None
              and (y := second.scores.get(key)) is not None]  # fmt: skip
    if not scores:
        return FigureComparison(metric, a.value, b.value, scale=scale, unscored=len(pairs), note="no sample in both")
    # A sample that names no cluster is one of its own.
    clusters = [sample.cluster or f"\0{sample.id}" for sample, _, _ in scores]
    of_a, of_b = [x for _, x, _ in scores], [y for _, _, y in scores]
    found = paired_difference(of_a, of_b, clusters)
    less = _less_is_better(metric)
    return FigureComparison(
        metric=metric,
        a=scale * math.fsum(of_a) / len(scores),
        b=scale * math.fsum(of_b) / len(scores),
        paired=replace(
            found,
            difference=found.difference.scaled(scale),
            detectable=None if found.detectable is None else found.detectable * scale,
        ),
        better=found.worse if less else found.better,
        worse=found.better if less else found.worse,
        same=found.n - found.better - found.worse,
        unscored=len(pairs) - len(scores),
        scale=scale,
    )


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
    yield "notes", list(a.notes), list(b.notes)


def _differing(values: Iterable[tuple[str, Any, Any]]) -> tuple[Differs, ...]:
    return tuple(Differs(what, a, b) for what, a, b in values if a != b)


def _flips(pairs: Sequence[tuple[Sample, Sample]], key: str | None, count: int) -> tuple[Flip, ...]:
    changes = []
    for a, b in pairs:
        x, y = (None, None) if key is None else (a.scores.get(key), b.scores.get(key))
        if x is not None and y is not None and x != y:
            changes.append(Flip(a.id, y - x, a.inputs, a.prompt, a.output, b.output, a.references))
    return tuple(sorted(changes, key=lambda flip: (-abs(flip.change), flip.id))[:count])


def _main(task: TaskComparison) -> FigureComparison | None:
    return next((figure for figure in task.figures if figure.metric == task.main), None)


def _verdict(task: TaskComparison, adjusted: dict[str, float]) -> str:
    """One plain sentence on the main figure; `adjusted` has every task's p, counting that there are several."""
    main = _main(task)
    if main is None:
        return f"nothing to compare: not both runs have {task.main}"
    if not task.samples:
        return "nothing to compare: no sample is in both runs"
    values = f"{main.metric} {number(main.a, main.scale)} and {number(main.b, main.scale)}"
    if main.paired is None:
        return f"{values}; not paired ({main.note}), so no test"
    found, difference = main.paired, main.paired.difference
    units = f"{found.n:,} sample" + "s" * (found.n > 1)
    if not found.better and not found.worse:
        return f"no difference: {values}, the same on each of {units}"
    if found.clusters < 2:
        return f"no difference can be told from {units} of one picture ({values})"
    p = probability(found.p)
    if len(adjusted) > 1 and found.p < ALPHA:
        p += f" ({probability(adjusted[task.task]).removeprefix('p ').removeprefix('= ')} among {len(adjusted)} tasks)"
    if adjusted[task.task] < ALPHA:
        winner = "B" if (difference.value > 0) != _less_is_better(main.metric) else "A"
        return f"{winner} is better by {spoken(_absolute(difference), main.scale)} {main.metric}, {p}"
    limit = found.detectable
    seen = f"smaller than {number(limit, main.scale)} would not be seen with these {units}" if limit else "too few vary"
    return f"no difference can be told: {seen} (B - A is {spoken(difference, main.scale)} {main.metric}, {p})"


def _less_is_better(metric: str) -> bool:
    return any(word in metric.lower() for word in LOWER_IS_BETTER)


def _absolute(found: Interval) -> Interval:
    if found.value >= 0:
        return found
    low, high = (None if x is None else -x for x in (found.high, found.low))
    return Interval(-found.value, low, high, found.error)
