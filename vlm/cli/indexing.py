"""`vlm index`: pictures and clips into an index, and the index kept up to date."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.options import AsJson, ModelName, Offline
from vlm.cli.output import emit, say, working
from vlm.cli.session import lazy_model, reported, sampling_of, space_of

if TYPE_CHECKING:
    from vlm.index.base import Index


class Duplicates(str, Enum):
    keep = "keep"
    exact = "exact"
    near = "near"


def index(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder; a .txt of paths and URLs; a .csv, .tsv or .parquet; COCO's .json; a .tar of shards ('*').",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="INDEX", help="The index's folder, made where there is none.")],
    model: ModelName = "nano",
    column: Annotated[
        str | None, typer.Option("--column", metavar="NAME", help="A table's column of paths, URLs or pictures.")
    ] = None,
    below: Annotated[
        Path | None, typer.Option("--below", metavar="DIR", help="Where relative paths start; else the file's folder.")
    ] = None,
    duplicates: Annotated[
        Duplicates, typer.Option("--duplicates", help="Leave out what has content (exact) or looks (near) of an entry.")
    ] = Duplicates.keep,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, max=1.0, metavar="COSINE", help="From where on near is near.")
    ] = 0.95,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove entries whose file has gone or cannot be read any more.")
    ] = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Index pictures and videos, or bring an index up to date with them.

    Files whose content is known are not embedded again. Other columns of a table, and captions, are kept as metadata.
    After a kill the same command goes on where it was.
    """
    from vlm.ingest.sources import open_source
    from vlm.ingest.sync import sync
    from vlm.weights import network_is_off

    read = open_source(source, column, below)
    load = lazy_model(model, offline)
    entries = _open(to, *space_of(model))
    with working("index", read.total) as advance:
        done = sync(
            entries,
            read,
            lambda media: load().embed_images(media),
            sampling=sampling_of(model),
            duplicates=duplicates.value,
            threshold=threshold,
            prune=prune,
            offline=offline or network_is_off(),
            advance=advance,
        )
    left_out = reported(done.skipped, "path")
    for twin, kept in done.duplicates:
        say(f"left out {twin}: a duplicate of {kept}")
    gone = f"{done.removed} removed" if prune else f"{done.vanished} no longer there (--prune removes them)"
    say(f"{done.indexed} indexed, {done.embedded} of them embedded now, {gone}")
    if as_json:
        twins = [{"path": twin, "same_as": kept} for twin, kept in done.duplicates]
        counts = {"embedded": done.embedded, "removed": done.removed, "vanished": done.vanished}
        emit({"indexed": done.indexed, **counts, "duplicates": twins, "skipped": left_out.get("skipped", [])})
    else:
        print(f"{to}: {done.indexed} indexed, {len(done.skipped)} skipped")
    if not done.indexed:
        raise typer.Exit(2)


def _open(to: Path, name: str, width: int) -> Index:
    from vlm.index.flat import MANIFEST, FlatIndex

    known = (to / MANIFEST).is_file()
    return FlatIndex.open(to, model=name, width=width) if known else FlatIndex.create(to, width, name)
