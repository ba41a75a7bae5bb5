"""The report's page: one HTML file that needs nothing beside it and asks nothing of a network."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vlm.evaluation.report.pictures import Album
from vlm.evaluation.report.plots import Plot, nice_ticks, plots
from vlm.evaluation.report.rows import Rows, rows
from vlm.evaluation.report.tables import (
    Sensitivity,
    decimals,
    finite,
    in_order,
    interval,
    number,
    published,
    sensitivities,
)
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, read_samples

PICTURE_BYTES = 32_000_000
TEXT_BYTES = 24_000_000
"""What a page holds of either, shared by its tasks alike; what one leaves goes to those after it."""
CATEGORIES = 40
ANSWERS = 8


@dataclass(frozen=True)
class Bar:
    """A value and its interval on an axis from 0; all but `top` in percent of the axis."""

    value: float
    low: float | None
    high: float | None
    top: str
    published: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Line:
    """A figure as the page shows it."""

    name: str
    value: str
    interval: str
    n: str
    note: str
    bar: Bar | None


@dataclass(frozen=True)
class Answer:
    """How often the model gave an answer, and how often it is the right one; in percent."""

    text: str
    given: float
    right: float


@dataclass(frozen=True)
class Section:
    """A task."""

    anchor: str
    title: str
    result: TaskResult
    main: Line
    lines: list[Line]
    categories: list[Line]
    more_categories: int
    plots: list[Plot]
    answers: list[Answer]
    rows: Rows
    notes: list[str]


@dataclass(frozen=True)
class Wordings:
    sensitivity: Sensitivity
    lines: list[tuple[int, str, Line]]


def page(info: RunInfo, tasks: Sequence[tuple[TaskResult, Path]], data: Path, top: int) -> str:
    """The page as text. Samples are read from the tasks' folders, pictures from `data`; see `write_reports`."""
    album, text_left, sections = Album(data, PICTURE_BYTES), TEXT_BYTES, []
    ceilings = _ceilings([result for result, _ in tasks])
    for i, (result, folder) in enumerate(tasks):
        album.begin_task(len(tasks) - i)
        ceiling = ceilings[result.main]
        section = _section(i + 1, result, folder, album, top, text_left // (len(tasks) - i), ceiling)
        text_left -= len(section.rows.text)
        sections.append(section)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["script"] = _script
    environment.filters["source"] = _source
    environment.filters["json"] = lambda value: json.dumps(finite(value), ensure_ascii=False)
    here = files("vlm.evaluation.report")
    style, script, template = (
        (here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html.j2")
    )
    return environment.from_string(template).render(
        info=info,
        sections=sections,
        unfinished=[task for task in info.tasks if task not in {folder.name for _, folder in tasks}],
        published=any(result.card.published for result, _ in tasks),
        wordings=[_wordings(s) for s in sensitivities([result for result, _ in tasks])],
        pictures=json.dumps(album.uris, separators=(",\n", ":")),
        style=Markup(style),
        script=Markup(script),
    )


def _ceilings(results: Sequence[TaskResult]) -> dict[str, float]:
    """What the axis of each main metric reaches to: bars of one metric, one below the other, are alike in scale."""
    found: dict[str, float] = {}
    for result in results:
        main = result.figures[result.main]
        reach = max([_reach(main), *(value for value, _ in published(result, result.main, main))])
        found[result.main] = max(found.get(result.main, 0.0), reach)
    return found


def _section(
    position: int, result: TaskResult, folder: Path, album: Album, top: int, text_bytes: int, main_ceiling: float
) -> Section:
    samples = list(read_samples(folder))
    shown = rows(result, samples, album, top, text_bytes)
    notes = list(result.notes)
    if album.unread:
        name, why = next(iter(album.unread.items()))
        notes.append(f"{len(album.unread)} pictures could not be shown, the first: {name} ({why})")
    if album.full:
        notes.append("Some pictures are left out to bound the size of this page")
    main = result.figures[result.main]
    overall = [(name, figures[result.main]) for name, figures in result.categories.items() if result.main in figures]
    if not overall:
        # The categories' figures may go by the sample's score, the main one by another name.
        score = main.sample_score
        overall = [(name, figures[score]) for name, figures in result.categories.items() if score in figures]
    largest = sorted(overall, key=lambda item: -item[1].n)[:CATEGORIES]
    ceiling = max((_reach(figure) for _, figure in largest), default=1.0)
    return Section(
        anchor=f"task-{position}",
        title=result.task,
        result=result,
        main=_line(result.main, main, result, main_ceiling),
        lines=[_line(name, figure, result) for name, figure in in_order(result)],
        categories=[_line(name, figure, None, ceiling) for name, figure in largest],
        more_categories=len(overall) - len(largest),
        plots=plots(result, samples),
        answers=_answers(result, samples),
        rows=shown,
        notes=notes,
    )


def _line(name: str, figure: Figure, result: TaskResult | None, ceiling: float | None = None) -> Line:
    others = published(result, name, figure) if result is not None else []
    bar = _bar(figure, max([ceiling or 0.0, _reach(figure), *(v for v, _ in others)]), others)
    return Line(name, number(figure.value, decimals(figure)), interval(figure), f"{figure.n:,}", figure.note, bar)


def _reach(figure: Figure) -> float:
    return max((v for v in (figure.value, figure.high) if v is not None and math.isfinite(v)), default=0.0)


def _bar(figure: Figure, reach: float, others: list[tuple[float, str]]) -> Bar | None:
    """None for a figure that an axis from 0 cannot show: a negative one, or a count without an interval."""
    known = [v for v in (figure.value, figure.low, figure.high) if v is not None]
    if not all(map(math.isfinite, known)) or figure.value < 0 or (figure.low is None and figure.scale != 100):
        return None
    top = figure.scale if figure.scale in (1, 100) and reach <= figure.scale else nice_ticks(0, reach)[-1]

    def at(value: float) -> float:
        return round(max(0.0, min(100.0, 100 * value / top)), 2)

    low, high = (None if v is None else at(v) for v in (figure.low, figure.high))
    return Bar(at(figure.value), low, high, f"{top:g}", tuple((at(v), f"{m}: {v:g}") for v, m in others if v >= 0))


def _answers(result: TaskResult, samples: Sequence[Sample]) -> list[Answer]:
    """The answers given most often beside how often the references say so: what a model leans to."""
    if result.card.kind not in ("vqa", "choice", "classification"):
        return []
    given = Counter(_plain(s.prediction) for s in samples if s.prediction)
    right = Counter(_plain(Counter(s.references).most_common(1)[0][0]) for s in samples if s.references)
    if len(samples) < 10 or len(given) < 2:
        return []
    share = 100 / len(samples)
    return [Answer(text, count * share, right[text] * share) for text, count in given.most_common(ANSWERS)]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())[:60]


def _wordings(s: Sensitivity) -> Wordings:
    ceiling = max(_reach(figure) for _, _, figure in s.prompts)
    return Wordings(s, [(n, text, _line(s.metric, figure, None, ceiling)) for n, text, figure in s.prompts])


def _script(text: str) -> Markup:
    """JSON inside a script element: no character there may end it or begin a comment."""
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _source(text: str) -> Markup:
    """Where a score was published; a link where it is a web address."""
    if text.startswith(("https://", "http://")) and not any(c.isspace() for c in text):
        shown = text.split("://", 1)[1].removeprefix("www.").rstrip("/")
        return Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(text, shown)
    return Markup("{}").format(text)
