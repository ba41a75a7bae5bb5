"""`vlm calibrate`: temperatures of decisions, fitted on a validation split."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vlm.cli.options import AsJson, Device, Dtype, ModelName, Offline
from vlm.cli.output import emit, say, table, working
from vlm.cli.session import lazy_model
from vlm.errors import BadInput


def calibrate(
    benchmarks: Annotated[
        list[str], typer.Argument(metavar="BENCHMARK...", help="Cards in eval/ or paths, of kind vqa or choice.")
    ],
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Of their data sets; by default the card's. No test.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="The decision.json to write; by default in the model's folder."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder of data sets; $VLM_DATA by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N examples.")] = None,
    model: ModelName = "nano",
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Fit one temperature for yes-or-no questions and one for choices, so that probabilities say how often they are
    right; `vlm decide` and `vlm eval --decide` apply them. A test split is refused.
    """
    from vlm.evaluation.card import load_card
    from vlm.heads.decisions.temperature import FILE

    cards = [load_card(name) for name in benchmarks]
    own = Path(model).expanduser()
    if to is None and not own.is_dir():
        raise BadInput(f"--to: expected a file to write, since model {model} is no folder")
    target = to if to is not None else own / FILE
    load = lazy_model(model, offline, device=device, dtype=dtype)
    with working("calibration", 100) as advance:
        from vlm.evaluation.calibrating import calibrate as run
        from vlm.evaluation.calibrating import validation_split

        for card in cards:
            validation_split(card, split)

        def report(name: str, done: int, total: int) -> None:
            advance(round(100 * done / total), f"{name}: {done} of {total}")

        folder = str(data) if data is not None else os.environ.get("VLM_DATA")
        fitted = run(load(), cards, target, split=split, data=folder, limit=limit, report=report)
    say("the figures are of the questions that the temperatures were fitted to; measure on a test split")
    if as_json:
        rows = [
            {
                "kind": one.kind, "temperature": round(one.temperature, 6),
                "before": {name: found.model_dump(mode="json") for name, found in one.before.items()},
                "after": {name: found.model_dump(mode="json") for name, found in one.after.items()},
            }
            for one in fitted
        ]  # fmt: skip
        emit({"results": rows, "written": str(target)})
        return
    from vlm.evaluation.report.tables import shown

    listed = [
        [one.kind, f"{one.temperature:.4g}", name, shown(found), shown(one.after[name])]
        for one in fitted
        for name, found in one.before.items()
    ]
    table(["kind", "temperature", "metric", "before", "after"], listed)
    print(target)
