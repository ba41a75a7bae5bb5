"""`vlm routing` and `vlm experts`: how evenly a mixture uses its experts, in training and on pictures and words."""

from __future__ import annotations

from math import nan
from pathlib import Path
from typing import Annotated

import typer

from vlm.cli.options import AsJson, Device, Dtype, ModelName, Offline
from vlm.cli.output import emit, table
from vlm.cli.session import expand, lazy_model, map_media
from vlm.cli.told import Told


def routing(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `vlm train`, drawn in one picture.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The PNG to make.")] = Path("routing.png"),
    as_json: AsJson = False,
) -> None:
    """Draw how evenly training runs use their experts."""
    from vlm.training.routing_log import draw_routing, last_figures, read_log

    short = len({run.name for run in runs}) == len(runs)
    logs = {run.name if short else str(run): read_log(run) for run in runs}
    draw_routing(logs, to)
    figures = {name: last_figures(rows) for name, rows in logs.items()}
    if as_json:
        emit({"picture": str(to), "runs": figures})
        return
    names = list(dict.fromkeys(name for found in figures.values() for name in found))
    table(["", *figures], [[name, *(f"{found.get(name, nan):g}" for found in figures.values())] for name in names])
    print(to)


def experts(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Pictures, videos, URLs, or folders of them.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The PNG to make.")] = Path("experts.png"),
    model: ModelName = "nano",
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Draw which experts pictures and words call while they are captioned.

    Inputs that cannot be read are reported on stderr, the others are done; the exit code is 2 if there were any.
    """
    load = lazy_model(model, offline, device=device, dtype=dtype)
    told = Told()
    inputs = expand(paths, told)
    done = map_media(inputs, lambda media: load().expert_use(media), told, label="experts", offline=offline)
    left_out = told.say()
    if done:
        from vlm.language.mixture.statistics import draw

        found = done[0][1]
        for _, more in done[1:]:
            found = found + more
        draw(found, to)
        figures = found.figures()
        if as_json:
            kinds = {kind: found.preference_LE(kind).tolist() for kind in found.kinds}
            emit({"picture": str(to), "inputs": len(done), **figures, "preference": kinds, **left_out})
        else:
            rows = [[str(n), *(f"{values[n]:.3g}" for values in figures.values())] for n in range(len(figures["load"]))]
            table(["mixture layer", *figures], rows)
            print(to)
    told.end()
