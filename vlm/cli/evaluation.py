"""`vlm eval`."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm import assets
from vlm.cli.options import AsJson, Device, Dtype, Offline, Temperatures
from vlm.cli.output import emit, say, table, working
from vlm.cli.session import check_model
from vlm.errors import VlmError

if TYPE_CHECKING:
    from vlm.evaluation.results import TaskResult


class Prompts(str, Enum):
    first = "first"
    all = "all"


def evaluate(
    tasks: Annotated[
        str, typer.Option("--tasks", metavar="A,B", help="Benchmarks: cards in eval/, groups or paths.")
    ] = "",
    listed: Annotated[bool, typer.Option("--list", help="Only name the benchmarks and groups there are.")] = False,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME|URL",
            help="A model as elsewhere, a server of `vlm serve retrieval`, or an OpenAI-compatible http://HOST/v1.",
        ),
    ] = "nano",
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="FILE|DIR", help="What a system said: lines of id and answer, caption or ranking."
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", metavar="NAME", help="The endpoint's model, or what the predictions are by."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=256, metavar="N", help="Requests to an endpoint at once.")
    ] = 8,
    retries: Annotated[
        int, typer.Option("--retries", min=0, metavar="N", help="How often a busy endpoint is asked again.")
    ] = 5,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds that an endpoint may take for a reply.")
    ] = 300.0,
    prices: Annotated[
        str | None,
        typer.Option("--prices", metavar="IN,OUT", help="Of a million tokens read and written: the cost is recorded."),
    ] = None,
    key_from: Annotated[
        str, typer.Option("--key-from", metavar="VARIABLE", help="The environment variable with the endpoint's key.")
    ] = "VLM_SERVER_KEY",
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="NAME|URL", help="What judges replies where a card wants it: as --model."),
    ] = None,
    judge_name: Annotated[
        str | None, typer.Option("--judge-name", metavar="NAME", help="The judge's name at its endpoint.")
    ] = None,
    decide: Annotated[
        bool, typer.Option("--decide", help="Also answer yes or no and choices by probabilities, and measure these.")
    ] = False,
    temperatures: Temperatures = None,
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
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Keep answers there, for all runs that name it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    prompts: Annotated[Prompts, typer.Option(help="A benchmark's first wording, or all it has.")] = Prompts.first,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure a model on benchmarks: figures with 95 % intervals, every sample, a report."""
    if listed:
        _list(as_json)
        return
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("expected at least one benchmark; --list names them", param_hint="--tasks")
    from vlm.evaluation.tasks import cards_of, tasks_of
    from vlm.media.urls import is_url

    # A card's faults are told before anything slow is imported.
    wanted = [task.name for card in cards_of(names) for task in tasks_of(card, prompts.value)]
    if predictions is None and not is_url(model):
        check_model(model)
    if judge is not None and not is_url(judge):
        check_model(judge)
    batch = _batch(batch_size)
    if offline:
        os.environ["VLM_OFFLINE"] = "1"
    with working("evaluation", 100) as advance:
        from vlm.evaluation.endpoint.client import EndpointOptions
        from vlm.evaluation.predictions import Predictions
        from vlm.evaluation.report.tables import sensitivities, terminal_rows
        from vlm.evaluation.run import Options
        from vlm.evaluation.run import evaluate as run

        begun = False

        def report(task: str, done: int, total: int) -> None:
            """Every task counts alike in the estimate."""
            nonlocal begun
            begun = True
            share = (wanted.index(task) + done / total) / len(wanted)
            advance(round(100 * share), f"{task}: {done} of {total}")

        asked = EndpointOptions(concurrency, retries, timeout, _prices(prices), key_from)
        options = Options(
            None if data is None else str(data), limit, batch, output, resume, prompts.value, device, dtype, model_name,
            asked, cache, judge, judge_name, decide, temperatures,
        )  # fmt: skip
        try:
            source = model if predictions is None else Predictions(predictions, model_name)
            results = run(source, names, options, report)
        except (KeyboardInterrupt, VlmError):
            if begun and output is not None and (output / "run.json").is_file():
                _reported_so_far(output, data)
            raise
        written: list[Path] = []
        if output is not None:
            from vlm.evaluation.report.write import write_reports

            advance(-1, "report")
            written = write_reports(output, data)
    for result in results:
        for warning in result.warnings:
            say(f"{result.task}: {warning}")
    if as_json:
        emit({"results": [_plain(result) for result in results], "written": [str(path) for path in written]})
        return
    columns, *rows = terminal_rows(results)
    table(columns, rows)
    for one in sensitivities(results):
        print(f"{one.benchmark}: {one.metric} moves by {one.spread_text} over {len(one.prompts)} prompts")
    for path in written:
        print(path)


def _list(as_json: bool) -> None:
    from vlm.evaluation.card import load_card
    from vlm.evaluation.tasks import groups_of

    paths = assets.cards("eval")
    cards = {name: load_card(name) for name in paths}
    groups = groups_of(cards.values())
    if as_json:
        keys = {"name", "about", "dataset", "kind"}
        about = [card.model_dump(mode="json", include=keys) | {"from": assets.origin(paths[name])}
                 for name, card in cards.items()]  # fmt: skip
        emit({"benchmarks": about, "groups": groups})
        return
    rows = [[name, card.kind, card.about, assets.origin(paths[name])] for name, card in cards.items()]
    table(["benchmark", "kind", "about", "from"], rows)
    table(["group", "benchmarks"], [[name, ", ".join(members)] for name, members in sorted(groups.items())])


def _reported_so_far(output: Path, data: Path | None) -> None:
    """What is done has its report, though the run has ended early."""
    from vlm.evaluation.report.write import write_reports
    from vlm.evaluation.results import read_run

    info, finished = read_run(output)
    if finished:
        write_reports(output, data)
        say(f"{len(finished)} of {len(info.tasks)} tasks are done and reported in {output}")
    say(f"what is answered is kept in {output}; the same command with --resume goes on")


def _prices(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        read = written = -1.0
    if not (0 <= read < float("inf") and 0 <= written < float("inf")):
        raise typer.BadParameter(f"expected two prices as in 0.15,0.6, got {text!r}", param_hint="--prices")
    return read, written


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
    usage = {} if result.usage is None else {"usage": result.usage.model_dump(mode="json")}
    return {**about, **figures, "intervals": intervals, "notes": list(result.notes), **usage}
