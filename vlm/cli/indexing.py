"""`vlm index`: pictures and clips into an index, and the index kept up to date."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.options import AsJson, Below, Column, Device, Dtype, ModelName, Offline, Width
from vlm.cli.output import emit, say, working
from vlm.cli.session import lazy_model, sampling_of, space_of
from vlm.cli.told import Told
from vlm.errors import BadInput

if TYPE_CHECKING:
    from vlm.index.base import Index, Vectors
    from vlm.ingest.sync import Synced
    from vlm.media.open import Media


class Duplicates(str, Enum):
    keep = "keep"
    exact = "exact"
    near = "near"


def index(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder; a .txt of paths and URLs; a .csv, .tsv, .jsonl or .parquet; COCO's or LLaVA's .json; "
            "a .tar of shards ('*'); a folder of vectors by `vlm embed`.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="INDEX",
            help="A folder, s3://bucket/prefix (LanceDB) or http://host:6333/name (Qdrant); made where there is none.",
        ),
    ],
    model: ModelName = "nano",
    column: Column = None,
    below: Below = None,
    duplicates: Annotated[
        Duplicates, typer.Option("--duplicates", help="Leave out what has content (exact) or looks (near) of an entry.")
    ] = Duplicates.keep,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, max=1.0, metavar="COSINE", help="From where on near is near.")
    ] = 0.95,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove entries whose file has gone or cannot be read any more.")
    ] = False,
    width: Width = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="Of a new index in a folder: flat (in memory) or lance (LanceDB, of any size).",
        ),
    ] = "flat",
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Index pictures and videos, or bring an index up to date with them.

    Files whose content is known are not embedded again. Other columns of a table, and captions, are kept as metadata.
    After a kill the same command goes on where it was. A folder of vectors is loaded without a model. What is left out
    or changed is told on stderr; the exit code is 2 if items were skipped.
    """
    from vlm.ingest import plan

    if plan.there(Path(source)):
        if prune or duplicates is not Duplicates.keep:
            raise BadInput(f"{source}: vectors are stored as they are; expected no --prune and no --duplicates")
        _load(Path(source), to, width, engine, as_json)
        return
    from vlm.ingest.sources import open_source
    from vlm.ingest.sync import sync
    from vlm.vectors import shortened
    from vlm.weights.parts import network_is_off

    read = open_source(source, column, below)
    load = lazy_model(model, offline, device=device, dtype=dtype, only=("images",))
    name, full = space_of(model)
    if width is not None and width > full:
        raise BadInput(f"--width {width}: expected at most {full}, the width of model {model}'s vectors")

    def embed(media: Sequence[Media]) -> Vectors:
        return shortened(load().embed_images(media), width)

    with closing(_open(to, name, width or full, engine)) as entries, working("index", read.total) as advance:
        done = sync(
            entries,
            read,
            embed,
            sampling=sampling_of(model),
            duplicates=duplicates.value,
            threshold=threshold,
            prune=prune,
            offline=offline or network_is_off(),
            advance=advance,
        )
    told = Told(done.skipped)
    told.notes.add_all(done.notes)
    left_out = {"skipped": [], **told.say("path")}
    for twin, kept in done.duplicates:
        say(f"left out {twin}: a duplicate of {kept}")
    gone = f"{done.removed} removed" if prune else f"{done.vanished} no longer there (--prune removes them)"
    say(f"{done.indexed} indexed, {done.embedded} of them embedded now, {gone}")
    if as_json:
        twins = [{"path": twin, "same_as": kept} for twin, kept in done.duplicates]
        counts = {"embedded": done.embedded, "removed": done.removed, "vanished": done.vanished}
        emit({"indexed": done.indexed, **counts, "duplicates": twins, **left_out})
    else:
        print(f"{to}: {done.indexed} indexed, {len(done.skipped)} skipped")
    _end(told, done)


def _end(told: Told, done: Synced) -> None:
    """2 where something was skipped, or nothing is there."""
    told.end()
    if not done.indexed:
        raise typer.Exit(2)


def _load(folder: Path, to: str, width: int | None, engine: str, as_json: bool) -> None:
    from vlm.ingest.loading import load
    from vlm.ingest.plan import open_plan

    plan = open_plan(folder)
    if width is not None and width > plan.width:
        raise BadInput(f"--width {width}: expected at most {plan.width}, the width of the vectors in {folder}")
    entries = _open(to, plan.model, width or plan.width, engine)
    with closing(entries), working("index", plan.items) as advance:
        done = load(entries, folder, advance=advance)
    told = Told(done.skipped)
    left_out = {"skipped": [], **told.say("path")}
    if as_json:
        emit({"indexed": done.indexed, "stored": done.moved, **left_out})
    else:
        print(f"{to}: {done.indexed} indexed, {len(done.skipped)} skipped")
    _end(told, done)


def _open(to: str, name: str, width: int, engine: str) -> Index:
    from vlm.index import create_index, is_folder, open_index, there

    if there(to):
        return open_index(to, model=name, width=width)
    return create_index(to, width, name, engine=engine if is_folder(to) else None)
