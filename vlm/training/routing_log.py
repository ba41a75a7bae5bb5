"""The routing of training runs, out of their logs: figures, and curves of several runs beside each other."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm.errors import BadInput
from vlm.files import atomic_write

Rows = list[dict[str, Any]]


def read_log(run: Path) -> Rows:
    """The rows of a run's log. Raises `BadInput` where there is no log, or no routing in it."""
    path = run / "log.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; expected the folder of a run of `vlm train`") from None
    except ValueError as error:
        raise BadInput(f"{path}: not a log: {error}") from None
    if not any("load" in row for row in rows):
        raise BadInput(f"{path}: no routing in it; the model it trains has no mixture layers")
    return rows


def last_figures(rows: Rows) -> dict[str, float]:
    """Where a run stands: of each figure the last, of the layers' the worst."""
    figures: dict[str, float] = {"step": rows[-1]["step"]}
    for name, worst in (("load", max), ("entropy", min), ("dead", max)):
        for key in (name, f"validation_{name}"):
            if found := [row[key] for row in rows if key in row]:
                figures[key] = worst(found[-1])
    for key in ("loss", "validation_next_token_loss"):
        if found := [row[key] for row in rows if key in row]:
            figures[key] = found[-1]
    return figures


def draw_routing(runs: Mapping[str, Rows], path: Path) -> None:
    """A PNG: the load of the busiest expert of the worst layer over steps, and below it the loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    loads, losses = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, (name, rows) in enumerate(runs.items()):
        colour = f"C{number}"
        for axes, key, worst in ((loads, "load", max), (losses, "next_token_loss", float)):
            step, held_out = (
                [(row["step"], worst(row[k])) for row in rows if k in row] for k in (key, f"validation_{key}")
            )
            if step:
                axes.plot(*zip(*step, strict=True), color=colour, alpha=0.3)
            if held_out:
                axes.plot(*zip(*held_out, strict=True), color=colour, marker="o", markersize=3)
        loads.plot([], [], color=colour, label=name)
    loads.axhline(1.0, color="grey", linewidth=0.8)
    loads.set(ylabel="busiest expert's load / mean\n(worst layer)", yscale="log")
    loads.set_yticks([1, 1.5, 2, 3, 4, 6, 8], labels=["1", "1.5", "2", "3", "4", "6", "8"])
    loads.minorticks_off()
    loads.legend(title="pale: a step's own text; dots: held-out text")
    losses.set(xlabel="step", ylabel="next-token loss")
    for axes in (loads, losses):
        axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    atomic_write(path, data.getvalue())
