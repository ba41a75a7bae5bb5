"""Several runs at once: every pair of them on every benchmark, their probabilities corrected for being many (Holm)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from vlm.errors import BadInput
from vlm.evaluation.comparing.compare import compare
from vlm.evaluation.comparing.verdict import ALPHA
from vlm.evaluation.direction import direction
from vlm.evaluation.results import Figure, read_run
from vlm.metrics.significance import holm
from vlm.metrics.statistics import Interval


@dataclass(frozen=True)
class Pair:
    """Two runs on one benchmark's main figure; `difference` is B minus A on the samples of both."""

    a: str
    b: str
    difference: Interval | None
    """None where they cannot be paired, which `note` explains."""
    p: float | None
    p_of_all: float | None
    """Counting that all pairs of all benchmarks are compared."""
    better: str | None
    """The run that is, where that can be told."""
    samples: int
    note: str = ""


@dataclass(frozen=True)
class TaskOfRuns:
    task: str
    metric: str
    scale: float
    figures: dict[str, Figure]
    """Of each run that has the task, its main figure over its own samples."""
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Comparisons:
    runs: dict[str, str]
    """Name -> model."""
    tasks: tuple[TaskOfRuns, ...]


def compare_all(folders: Sequence[Path]) -> Comparisons:
    """Every pair of runs. A task is compared among the runs that have it finished, if they are two or more.

    Raises `BadInput` as `compare`, and where one folder is named twice or no task is finished in two runs.
    """
    names = run_names(folders)
    read = {name: read_run(folder) for name, folder in zip(names, folders, strict=True)}
    pairs: dict[str, list[Pair]] = {}
    for (a, folder_a), (b, folder_b) in combinations(zip(names, folders, strict=True), 2):
        if not set(read[a][1]) & set(read[b][1]):
            continue
        for compared in compare(folder_a, folder_b, flips=0).tasks:
            shown = compared.main_figure
            tried = None if shown is None else shown.paired
            note = f"not both have {compared.main}" if shown is None else shown.note
            difference, p = (None, None) if tried is None else (tried.difference, tried.p)
            pairs.setdefault(compared.task, []).append(Pair(a, b, difference, p, None, None, compared.samples, note))
    if not pairs:
        raise BadInput(f"{', '.join(map(str, folders))}: no task is finished in two of these runs")
    tested = [(task, i) for task, found in pairs.items() for i, pair in enumerate(found) if pair.p is not None]
    corrected = holm([p for task, i in tested if (p := pairs[task][i].p) is not None])
    tasks: dict[str, TaskOfRuns] = {}
    for task in pairs:
        results = {name: run[1][task] for name, run in read.items() if task in run[1]}
        main = next(iter(results.values())).main
        figures = {name: result.figures[main] for name, result in results.items() if main in result.figures}
        tasks[task] = TaskOfRuns(task, main, next(iter(figures.values())).scale, figures, ())
    for (task, i), p_of_all in zip(tested, corrected, strict=True):
        pairs[task][i] = _judged(pairs[task][i], p_of_all, tasks[task].metric)
    models = {name: info.model for name, (info, _) in read.items()}
    return Comparisons(models, tuple(replace(tasks[task], pairs=tuple(found)) for task, found in pairs.items()))


def _judged(pair: Pair, p_of_all: float, metric: str) -> Pair:
    better = None
    if p_of_all < ALPHA and pair.difference is not None:
        better = pair.b if (pair.difference.value > 0) == (direction(metric) != "down") else pair.a
    return replace(pair, p_of_all=p_of_all, better=better)


def run_names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: their folders' names, or their paths where two are called alike."""
    for position, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:position]]:
            raise BadInput(f"{folder}: named twice; expected different runs")
    short = [folder.resolve().name for folder in folders]
    return [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]
