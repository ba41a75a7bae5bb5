"""What a comparison says in words: one plain sentence a task, and the numbers in it."""

from __future__ import annotations

from collections.abc import Mapping

from vlm.evaluation.comparing.comparison import TaskComparison
from vlm.evaluation.direction import direction
from vlm.metrics.statistics import Interval

ALPHA = 0.05


def verdict(task: TaskComparison, p_of_tasks: Mapping[str, float]) -> str:
    """One plain sentence on the main figure; `p_of_tasks` has every tested task's p, mindful that there are several."""
    main = task.main_figure
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
    p, p_of_all = probability(found.p), p_of_tasks[task.task]
    if len(p_of_tasks) > 1 and found.p < ALPHA:
        p += f" ({bare(probability(p_of_all))} among {len(p_of_tasks)} tasks)"
    if p_of_all < ALPHA:
        winner = "B" if (difference.value > 0) == (direction(main.metric) != "down") else "A"
        return f"{winner} is better by {spoken(_absolute(difference), main.scale)} {main.metric}, {p}"
    if found.detectable is None:
        seen = f"{units} of {found.clusters:,} pictures are too few for any"
    else:
        seen = f"smaller than {number(found.detectable, main.scale)} would not be seen with these {units}"
    return f"no difference can be told: {seen} (B - A is {spoken(difference, main.scale)} {main.metric}, {p})"


def number(value: float, scale: float = 1.0) -> str:
    """As many digits as mean something: two of a percentage, four of a fraction."""
    return f"{value:,.2f}" if abs(scale) >= 10 else f"{value:,.4f}"


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def bare(probability: str) -> str:
    """ "0.031" or "< 0.001": what stands in a column of its own."""
    return probability.removeprefix("p ").removeprefix("= ")


def spoken(found: Interval, scale: float) -> str:
    """ "1.20 (0.30 to 2.10)", without the brackets where there is no interval."""
    if found.low is None or found.high is None:
        return number(found.value, scale)
    return f"{number(found.value, scale)} ({number(found.low, scale)} to {number(found.high, scale)})"


def _absolute(found: Interval) -> Interval:
    if found.value >= 0:
        return found
    low, high = (None if x is None else -x for x in (found.high, found.low))
    return Interval(-found.value, low, high, found.error)
