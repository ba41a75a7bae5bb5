"""`vlm leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm.cli.options import AsJson
from vlm.cli.output import emit, working


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `vlm eval --output`.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE|DIR", help="What to write; else it is printed.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="markdown, csv, tensorboard or wandb (an offline run).")
    ] = "markdown",
    as_json: AsJson = False,
) -> None:
    """Put the figures of runs side by side, as a table or for another tool."""
    from vlm.errors import unknown
    from vlm.evaluation.report import leaderboard as board

    if form not in board.FORMATS:
        raise unknown("format", form, board.FORMATS)
    if to is None and form not in ("markdown", "csv"):
        raise typer.BadParameter(f"expected the folder to write for {form}", param_hint="--to")
    found = board.read_runs(runs)
    if to is not None:
        with working("writing"):
            board.FORMATS[form](found, to)
    if as_json:
        columns = board.COLUMNS
        lines = [dict(zip(columns[:6], about, strict=True)) | figure.model_dump(mode="json", include=set(columns))
                 for *about, figure in board.rows(found)]  # fmt: skip
        emit({"figures": lines, "written": None if to is None else str(to)})
    elif to is None:
        print(board.markdown(found) if form == "markdown" else board.as_csv(found), end="")
    else:
        print(to)
