"""Figures as people and programs read them: rows for a terminal, Markdown, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from vlm.evaluation.results import Figure, RunInfo, TaskResult

COLUMNS = ["task", "metric", "value [95 %]", "n", "published"]


@dataclass(frozen=True)
class Sensitivity:
    """How much a benchmark's main figure moves with the wording of its prompt."""

    benchmark: str
    metric: str
    prompts: tuple[tuple[int, str, Figure], ...]
    """Number, wording and main figure of each prompt, the one that counts first."""

    @property
    def spread(self) -> float:
        """The best prompt's figure less the worst one's."""
        values = [figure.value for _, _, figure in self.prompts]
        return max(values) - min(values)

    @property
    def spread_text(self) -> str:
        digits = max(decimals(figure) for _, _, figure in self.prompts)
        return f"{self.spread:.{digits}f}" if math.isfinite(self.spread) else "-"


def decimals(figure: Figure) -> int:
    """One decimal in percent and for large values, three for small ones, none for counts and whole ranks."""
    known = [v for v in (figure.value, figure.low, figure.high) if v is not None and math.isfinite(v)]
    if figure.scale == 100:
        return 1
    if all(v == int(v) for v in known):
        return 0
    return 1 if any(abs(v) >= 10 for v in known) else 3


def number(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals, thousands apart; a dash where it is missing or not finite."""
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def interval(figure: Figure) -> str:
    """ "[18.2, 23.1]", or nothing where a figure has no interval."""
    if figure.low is None or figure.high is None:
        return ""
    digits = decimals(figure)
    return f"[{number(figure.low, digits)}, {number(figure.high, digits)}]"


def shown(figure: Figure) -> str:
    """ "20.6 [18.2, 23.1]"."""
    return f"{number(figure.value, decimals(figure))} {interval(figure)}".rstrip()


def in_order(result: TaskResult) -> list[tuple[str, Figure]]:
    """A task's figures, the main one first."""
    return sorted(result.figures.items(), key=lambda item: item[0] != result.main)


def published(result: TaskResult, name: str, figure: Figure) -> list[tuple[float, str]]:
    """What others report of a metric, and which model, on the scale of `figure`.

    Caption metrics are often published times 100; a card that gives them so says it in the score's note.
    """
    found = [p for p in result.card.published if p.metric == name]
    return [(p.value / 100 if "times 100" in p.note and figure.scale != 100 else p.value, p.model) for p in found]


def sensitivities(results: Sequence[TaskResult]) -> list[Sensitivity]:
    """The benchmarks that were run with more than one prompt."""
    groups: dict[str, list[TaskResult]] = {}
    for result in results:
        groups.setdefault(result.card.name, []).append(result)
    found = []
    for name, group in groups.items():
        group = sorted((r for r in group if r.main == group[0].main), key=lambda r: r.prompt_number)
        if len(group) > 1:
            prompts = tuple((r.prompt_number, r.prompt, r.figures[r.main]) for r in group)
            found.append(Sensitivity(name, group[0].main, prompts))
    return found


def terminal_rows(results: Sequence[TaskResult]) -> list[list[str]]:
    """The columns' names, then a row for each figure; a task is named in its first row.

    Without the column of published scores where there are none.
    """
    rows = [COLUMNS]
    for result in results:
        for position, (name, figure) in enumerate(in_order(result)):
            others = ", ".join(f"{v:g} ({model})" for v, model in published(result, name, figure)[:2])
            task = result.task if position == 0 else ""
            rows.append([task, name, shown(figure), f"{figure.n:,}", others])
    return rows if any(row[-1] for row in rows[1:]) else [row[:-1] for row in rows]


def as_json(info: RunInfo, results: Sequence[TaskResult]) -> str:
    """The run, every result as it was written, and the spread over prompts; nothing of the machine it ran on."""
    data: dict[str, Any] = {
        "run": info.model_dump(mode="json", exclude={"data"}),
        "results": [result.model_dump(mode="json") for result in results],
        "prompt_sensitivity": [
            {
                "benchmark": s.benchmark,
                "metric": s.metric,
                "spread": s.spread,
                "prompts": [{"number": n, "prompt": text, "value": figure.value} for n, text, figure in s.prompts],
            }
            for s in sensitivities(results)
        ],
    }
    return json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def finite(data: Any) -> Any:
    """`data` with null for what JSON has no word for (NaN, the infinities)."""
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def markdown(info: RunInfo, results: Sequence[TaskResult]) -> str:
    """The run as a Markdown document."""
    lines = [f"# {_cell(info.model)}", ""]
    lines += [f"Weights `{info.weights}` · vlm {_cell(info.version)} · {len(results)} of {len(info.tasks)} tasks", ""]
    overview = [
        [r.task, r.main, shown(r.figures[r.main]), f"{r.figures[r.main].n:,}"] for r in results
    ]  # fmt: skip
    lines += markdown_table(["Task", "Main figure", "Value [95 %]", "n"], overview)
    for result in results:
        lines += _task(result)
    for s in sensitivities(results):
        rows = [[str(n), text or "(none)", shown(figure)] for n, text, figure in s.prompts]
        lines += [f"## {_cell(s.benchmark)}: the prompt's wording", ""]
        lines += [f"{_cell(s.metric)} moves by {s.spread_text} over {len(rows)} prompts.", ""]
        lines += markdown_table(["Prompt", "Wording", f"{s.metric} [95 %]"], rows)
    return "\n".join(lines).rstrip() + "\n"


def _task(result: TaskResult) -> list[str]:
    card = result.card
    lines = [f"## {_cell(result.task)}", "", _cell(card.about), ""]
    rows = [[name, shown(figure), f"{figure.n:,}", figure.note] for name, figure in in_order(result)]
    lines += markdown_table(["Metric", "Value [95 %]", "n", "Note"], rows)
    if card.published:
        lines += ["Published:", ""]
        rows = [[p.model, p.metric, f"{p.value:g}", p.source, p.note] for p in card.published]
        lines += markdown_table(["Model", "Metric", "Value", "Source", "Note"], rows)
    if result.categories:
        names = list(dict.fromkeys(name for figures in result.categories.values() for name in figures))
        rows = [
            [category, *(shown(figures[name]) if name in figures else "-" for name in names)]
            for category, figures in result.categories.items()
        ]
        lines += [f"By {_cell(card.category or 'category')}:", ""]
        lines += markdown_table(["Category", *names], rows)
    lines += [f"- Data: {_cell(card.dataset)}, split {_cell(card.split)}"]
    if result.prompt:
        lines += [f"- Prompt {result.prompt_number}: {_cell(result.prompt)}"]
    settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in result.settings.items())
    lines += [f"- Settings: {_cell(settings or 'none')}", f"- Weights: `{result.weights}`"]
    lines += [f"- Note: {_cell(note)}" for note in result.notes]
    for name, usage in (("Endpoint", result.usage), ("Judge", result.judge_usage)):
        lines += [] if usage is None else [f"- {name}: {_cell(str(usage))}"]
    return [*lines, ""]


def markdown_table(columns: list[str], rows: list[list[str]], bold: Container[tuple[int, int]] = ()) -> list[str]:
    """A Markdown table and an empty line; columns that are empty in every row are left out. `bold` are the places
    (row, column) of cells that stand out."""
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)] or list(range(len(columns)))
    body = [[f"**{_cell(row[i])}**" if (n, i) in bold else _cell(row[i]) for i in kept] for n, row in enumerate(rows)]
    lines = [[_cell(columns[i]) for i in kept], ["---"] * len(kept), *body]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for character in "\\`*|":
        text = text.replace(character, "\\" + character)
    return " ".join(text.replace("](", "]\\(").replace("<", "&lt;").split())
