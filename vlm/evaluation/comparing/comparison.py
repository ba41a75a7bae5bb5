"""What a comparison of two runs holds; `vlm compare --json` gives it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlm.evaluation.results import RunInfo
from vlm.metrics.significance import PairedDifference


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
    """B minus A; None where the samples cannot be paired, which `note` explains."""
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
    """The most changed samples by the main figure, or the first that is paired."""

    @property
    def main_figure(self) -> FigureComparison | None:
        return next((figure for figure in self.figures if figure.metric == self.main), None)


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
