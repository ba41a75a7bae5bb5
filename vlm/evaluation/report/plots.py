"""The report's plots: small SVG drawings whose colours come from the page, so that they fit light and dark."""

# Drawn here and not by matplotlib's SVG, which was tried: a histogram of 13.7 KB in 70 ms (here 3.5 KB in 2 ms), no
# value of a bar under the pointer, and ids and a style element that are the whole page's. Its 20 lines for the 48 of
# `Axes` are before the XML is rewritten for those, so the code would not be clearly shorter.

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from vlm.evaluation.direction import is_rank
from vlm.evaluation.report.samples import default_score, score_names, value
from vlm.evaluation.results import Sample, TaskResult
from vlm.metrics.statistics import interval_of_mean

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 14, 40
BINS = 24


@dataclass(frozen=True)
class Plot:
    title: str
    svg: Markup
    note: str = ""
    legend: tuple[str, ...] = ()
    """Names of the series, in the order of their colours."""


class Axes:
    """A frame in data coordinates that collects SVG elements."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], log_x: bool = False) -> None:
        self._x, self._y, self._log = x, y, log_x
        self._parts: list[Markup] = []

    def x(self, value: float) -> float:
        f: Callable[[float], float] = math.log if self._log else float
        low, high = f(self._x[0]), f(self._x[1])
        return LEFT + (f(value) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    def ticks(self, xs: Sequence[float], ys: Sequence[float], x_label: str, percent: bool = False) -> None:
        for y in ys:
            at = self.y(y)
            self._add('<path class="grid" d="M{} {:.1f}H{}"/>', LEFT, at, WIDTH - RIGHT)
            self.text(LEFT - 7, at + 4, f"{y:g}{' %' if percent else ''}", "end")
        for x in xs:
            self.text(self.x(x), HEIGHT - BOTTOM + 17, f"{x:g}", "middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label, "middle")

    def bar(self, x0: float, x1: float, top: float, css: str, tip: str) -> None:
        left, right, y = self.x(x0), self.x(x1), self.y(top)
        self._add(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>',
            css, left + 0.5, y, max(0.5, right - left - 1), max(0.0, HEIGHT - BOTTOM - y), tip,
        )  # fmt: skip

    def line(self, points: Sequence[tuple[float, float]], css: str) -> None:
        text = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self._add('<polyline class="{}" points="{}"/>', css, text)

    def dot(self, x: float, y: float, css: str, tip: str) -> None:
        template = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>'
        self._add(template, css, self.x(x), self.y(y), tip)

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        """Text at a place in pixels."""
        self._add('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>', x, y, anchor, text)

    def svg(self, describe: str) -> Markup:
        head = '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">'
        return Markup(head).format(WIDTH, HEIGHT, describe) + Markup("").join(self._parts) + Markup("</svg>")

    def _add(self, template: str, *values: object) -> None:
        self._parts.append(Markup(template).format(*(escape(v) if isinstance(v, str) else v for v in values)))


def plots(result: TaskResult, samples: Sequence[Sample]) -> list[Plot]:
    """Every plot that a task's samples allow."""
    score = default_score(result, samples)
    main = result.figures[result.main].sample_score
    spread = main if main in score_names(samples) else score
    made = [recall_curve(samples), histogram(samples, spread), reliability(result, samples, score)]
    if result.card.kind == "caption":
        made.append(lengths(samples))
    return [plot for plot in made if plot is not None]


def recall_curve(samples: Sequence[Sample]) -> Plot | None:
    """The share of queries whose right candidate ranks k or better, over k."""
    series = {name: group for name, group in _ranks(samples).items() if group}
    if not series:
        return None
    most = min(1000, max(10, *(math.ceil(max(ranks)) for ranks in series.values())))
    axes = Axes((1, most), (0, 100), log_x=True)
    marks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if k <= most]
    axes.ticks(marks, range(0, 101, 25), "k", percent=True)
    told = []
    for color, (name, ranks) in enumerate(series.items(), 1):
        ks = sorted({round(most ** (i / 100)) for i in range(101)} | set(marks))
        ranks = sorted(ranks)
        # A tie's half rank counts from the whole rank below it, as in the figures.
        points = [(k, 100 * bisect_left(ranks, k + 1) / len(ranks)) for k in ks]
        axes.line(points, f"series s{color}")
        for k, recall in points:
            if k in (1, 5, 10):
                axes.dot(k, recall, f"dot s{color}", f"{name}: recall at {k} is {recall:.1f} %")
        told.append(f"{name}: " + ", ".join(f"R@{k} {recall:.1f} %" for k, recall in points if k in (1, 5, 10)))
    return Plot("Recall at k", axes.svg("Recall at k. " + "; ".join(told)), "; ".join(told) + ".", tuple(series))


def _ranks(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Ranks by name; of one score over a few categories (the two directions), by category."""
    names = [name for name in score_names(samples) if is_rank(name)]
    categories = list(dict.fromkeys(s.category for s in samples))
    if len(names) == 1 and 2 <= len(categories) <= 4 and None not in categories:
        (name,) = names
        return {str(c): _values([s for s in samples if s.category == c], name) for c in categories}
    return {name: _values(samples, name) for name in names[:4]}


def histogram(samples: Sequence[Sample], score: str | None) -> Plot | None:
    """How a score is spread over the samples; nothing where it is only right or wrong."""
    values = _values(samples, score) if score else []
    if score is None or len(set(values)) < 3 or is_rank(score):
        return None
    low, high = min(0.0, min(values)), max(values)
    xs = nice_ticks(low, high)
    low, high = min(low, xs[0]), max(high, xs[-1])
    width = (high - low) / BINS
    counts = Counter(min(BINS - 1, int((v - low) / width)) for v in values)
    ys = nice_ticks(0, max(counts.values()))
    axes = Axes((low, high), (0, ys[-1]))
    axes.ticks(xs, ys, score)
    for b in range(BINS):
        start = low + b * width
        axes.bar(start, start + width, counts[b], "fill s1", f"{start:.3g} to {start + width:.3g}: {counts[b]} samples")
    mean = sum(values) / len(values)
    axes.line([(mean, 0), (mean, ys[-1])], "mark")
    middle = sorted(values)[len(values) // 2]
    note = f"{len(values):,} samples; mean {mean:.3g} (the line), median {middle:.3g}."
    return Plot(f"{score} of each sample", axes.svg(f"Histogram of {score}. {note}"), note)


def reliability(result: TaskResult, samples: Sequence[Sample], score: str | None) -> Plot | None:
    """How often the model is right at each confidence; on the diagonal it is as sure as it should be."""
    pairs = []
    for sample in samples:
        sure, right = value(sample, "confidence"), value(sample, score)
        if sure is not None and right is not None and score is not None and 0 <= sure <= 1:
            pairs.append((sure, float(right <= 1) if is_rank(score) else right, sample.cluster or sample.id))
    if not pairs or result.card.kind == "caption" or not all(0 <= right <= 1 for _, right, _ in pairs):
        return None
    axes = Axes((0, 1), (0, 100))
    axes.ticks([0, 0.25, 0.5, 0.75, 1], range(0, 101, 25), "confidence", percent=True)
    bins: dict[int, list[tuple[float, float, str]]] = {}
    for pair in pairs:
        bins.setdefault(min(9, int(pair[0] * 10)), []).append(pair)
    error = 0.0
    for b, group in sorted(bins.items()):
        sures, rights, clusters = zip(*group, strict=True)
        found = interval_of_mean(rights, clusters).scaled(100).within((0, 100))
        error += abs(100 * sum(sures) / len(group) - found.value) * len(group) / len(pairs)
        axes.bar(b / 10, b / 10 + 0.1, found.value, "fill s1", f"{found.value:.1f} % right, n = {len(group):,}")
        if found.low is not None and found.high is not None:
            axes.line([(b / 10 + 0.05, found.low), (b / 10 + 0.05, found.high)], "whisker")
    axes.line([(0, 0), (1, 100)], "mark")
    sure = 100 * sum(sure for sure, _, _ in pairs) / len(pairs)
    right = 100 * sum(right for _, right, _ in pairs) / len(pairs)
    note = f"On average {sure:.1f} % sure and {right:.1f} % right; expected calibration error {error:.1f} %"
    note += f" over {len(pairs):,} samples. Whiskers: 95 % intervals."
    return Plot("Calibration", axes.svg(f"Reliability diagram. {note}"), note)


def lengths(samples: Sequence[Sample]) -> Plot | None:
    """Words of the captions beside words of the references."""
    said = [len((s.prediction or str(s.output or "")).split()) for s in samples]
    wanted = [len(reference.split()) for s in samples for reference in s.references]
    if not said or not wanted:
        return None
    both = sorted([*said, *wanted])
    most = max(10, min(both[-1], math.ceil(1.5 * both[int(0.99 * (len(both) - 1))])))
    shares = [
        [100 * count / len(group) for count in _counted([min(v, most) for v in group], most)]
        for group in (said, wanted)
    ]
    ys = nice_ticks(0, max(max(share) for share in shares))
    axes = Axes((-0.5, most + 0.5), (0, ys[-1]))
    axes.ticks([x for x in nice_ticks(0, most) if x <= most], ys, "words", percent=True)
    for words, share in enumerate(shares[0]):
        axes.bar(words - 0.5, words + 0.5, share, "fill s1", f"{words} words: {share:.1f} % of the captions")
    steps = [(words + side, share) for words, share in enumerate(shares[1]) for side in (-0.5, 0.5)]
    axes.line(steps, "series s2")
    note = f"On average {sum(said) / len(said):.1f} words, the references {sum(wanted) / len(wanted):.1f}."
    return Plot("Caption length", axes.svg(f"Caption length. {note}"), note, ("captions", "references"))


def _counted(values: Sequence[int], most: int) -> list[int]:
    counts = Counter(values)
    return [counts[v] for v in range(most + 1)]


def _values(samples: Sequence[Sample], score: str) -> list[float]:
    return [found for sample in samples if (found := value(sample, score)) is not None]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover `low` to `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * about >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 10) for i in range(first, last + 1)]
    return ticks if len(ticks) > 1 else [*ticks, round(ticks[0] + step, 10)]
