"""`vlm eval`."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import AsJson, ModelName, Offline
from vlm.cli.output import emit, table, working
from vlm.cli.session import check_model

if TYPE_CHECKING:
    from vlm.evaluation.results import TaskResult


class Prompts(str, Enum):
    first = "first"
    all = "all"


def evaluate(
    tasks: Annotated[str, typer.Option("--tasks", metavar="A,B", help="Benchmarks: cards in eval/, groups or paths.")],
    model: ModelName = "nano",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder of data sets; $VLM_DATA by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N examples.")] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", metavar="N|auto", help="Answers written at once; changes no answer.")
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Keep results, samples and a report there.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    prompts: Annotated[Prompts, typer.Option(help="A benchmark's first wording, or all it has.")] = Prompts.first,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Measure a model on benchmarks: figures with 95 % intervals, every sample, a report."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("expected at least one benchmark", param_hint="--tasks")
    check_model(model)
    batch = _batch(batch_size)
    if offline:
        os.environ["VLM_OFFLINE"] = "1"
    with working("evaluation", 100) as advance:
        from vlm.evaluation.report.tables import terminal_rows
        from vlm.evaluation.run import Options, cards_of
        from vlm.evaluation.run import evaluate as run

        wanted = [card.name for card in cards_of(names)]

        def report(task: str, done: int, total: int) -> None:
            """Every benchmark counts alike in the estimate."""
            base = task.partition("@")[0]
            share = (wanted.index(base) + done / total) / len(wanted) if base in wanted else 0.0
            advance(round(100 * share), f"{task}: {done} of {total}")

        options = Options(None if data is None else str(data), limit, batch, output, resume, prompts.value)
        results = run(model, names, options, report)
        written: list[Path] = []
        if output is not None:
            from vlm.evaluation.report.write import write_reports

            advance(-1, "report")
            written = write_reports(output, data)
    if as_json:
        emit({"results": [_plain(result) for result in results], "written": [str(path) for path in written]})
        return
    columns, *rows = terminal_rows(results)
    table(columns, rows)
    for path in written:
        print(path)


def _batch(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"expected auto or a positive number, got {text!r}", param_hint="--batch-size")
    return int(text)


def _plain(result: TaskResult) -> dict[str, Any]:
    """A result as one flat object: each figure by its name, its 95 % interval under `intervals`."""
    intervals = {key: [figure.low, figure.high] for key, figure in result.figures.items()}
    about = {"task": result.task, "model": result.model, "weights": result.weights, **result.settings}
    figures = {key: figure.value for key, figure in result.figures.items()}
    return {**about, **figures, "intervals": intervals, "notes": list(result.notes)}
