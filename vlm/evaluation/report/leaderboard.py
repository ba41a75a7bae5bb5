"""The figures of several runs as files for other tools: a Markdown table, CSV, TensorBoard events, a W&B run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vlm.errors import BadInput
from vlm.evaluation.comparing.many import run_names
from vlm.evaluation.direction import direction
from vlm.evaluation.report.tables import markdown_table, shown
from vlm.evaluation.results import Figure, RunInfo, TaskResult, read_run
from vlm.files import atomic_write

Run = tuple[RunInfo, dict[str, TaskResult]]
COLUMNS = ("run", "model", "weights", "task", "metric", "main", "value", "low", "high", "error", "n")


def read_runs(folders: Sequence[Path]) -> dict[str, Run]:
    """Runs by their names. Raises `BadInput` for a folder that is none, or is named twice."""
    return {name: read_run(folder) for name, folder in zip(run_names(folders), folders, strict=True)}


def markdown(runs: Mapping[str, Run]) -> str:
    """A row a run, the best first by its mean place, a column a benchmark; the best of each is bold."""
    columns = dict.fromkeys((task, result.main) for _, results in runs.values() for task, result in results.items())
    mains: dict[tuple[str, str], dict[str, Figure]] = {
        (task, metric): {
            name: results[task].figures[metric]
            for name, (_, results) in runs.items()
            if task in results and metric in results[task].figures
        }
        for task, metric in columns
    }
    places = {column: _places(figures, column[1]) for column, figures in mains.items()}
    of_run = {name: [place[name] for place in places.values() if name in place] for name in runs}
    order = sorted(runs, key=lambda name: (sum(of_run[name]) / len(of_run[name]) if of_run[name] else 1e9, name))
    body = [
        [name, runs[name][0].model, *(shown(found[name]) if name in found else "-" for found in mains.values())]
        for name in order
    ]
    best = {
        (row, column)
        for row, name in enumerate(order)
        for column, place in enumerate(places.values(), 2)
        if place.get(name) == 1 and len(place) > 1
    }
    heads = ["Run", "Model", *(f"{task} ({metric})" for task, metric in mains)]
    return "\n".join(markdown_table(heads, body, best))


def _places(figures: Mapping[str, Figure], metric: str) -> dict[str, int]:
    """1 for the best value; equal values share a place."""
    less = direction(metric) == "down"
    values = {name: -figure.value if less else figure.value for name, figure in figures.items()}
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}


def rows(runs: Mapping[str, Run]) -> Iterator[tuple[str, str, str, str, str, bool, Figure]]:
    """Every figure: run, model, weights, task, metric, whether it is the main one."""
    for name, (info, results) in runs.items():
        for task, result in results.items():
            for metric, figure in result.figures.items():
                yield name, info.model, info.weights, task, metric, metric == result.main, figure


def as_csv(runs: Mapping[str, Run]) -> str:
    """A row a figure, on the scale it is published in; empty where there is no interval."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for *about, is_main, figure in rows(runs):
        numbers = (figure.value, figure.low, figure.high, figure.error)
        writer.writerow([*about, int(is_main), *("" if x is None else repr(x) for x in numbers), figure.n])
    return out.getvalue()


def to_tensorboard(runs: Mapping[str, Run], to: Path) -> None:
    """A folder of events a run, a scalar a figure. Raises `BadInput` without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BadInput("--format tensorboard: expected the package tensorboard; pip install tensorboard") from None
    for name in runs:
        with SummaryWriter(str(to / Path(name).name)) as writer:
            for _, _, _, task, metric, _, figure in rows({name: runs[name]}):
                writer.add_scalar(f"{task}/{metric}", figure.value, 0)


def to_wandb(runs: Mapping[str, Run], to: Path) -> None:
    """An offline run each, for `wandb sync` to send. Raises `BadInput` without the package."""
    try:
        import wandb
    except ImportError:
        raise BadInput("--format wandb: expected the package wandb; pip install wandb") from None
    to.mkdir(parents=True, exist_ok=True)
    for name, (info, _) in runs.items():
        config = {"model": info.model, "weights": info.weights, "vlm": info.version}
        run = wandb.init(mode="offline", dir=str(to), project="vlm", name=name, config=config)
        run.log({f"{task}/{metric}": figure.value for _, _, _, task, metric, _, figure in rows({name: runs[name]})})
        run.finish()


FORMATS: dict[str, Callable[[Mapping[str, Run], Path], None]] = {
    "markdown": lambda runs, to: atomic_write(to, markdown(runs)),
    "csv": lambda runs, to: atomic_write(to, as_csv(runs)),
    "tensorboard": to_tensorboard,
    "wandb": to_wandb,
}
