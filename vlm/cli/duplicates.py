"""`vlm duplicates`: pictures and clips of an index that show nearly the same."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm.cli.options import AsJson, Index
from vlm.cli.output import emit, shown_path


def duplicates(
    index: Index,
    threshold: Annotated[
        float,
        typer.Option("--threshold", min=0.0, max=1.0, metavar="S", help="The least similarity of two near-duplicates."),
    ] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Group the entries of an index that are nearly the same.

    Two are in one group where a chain of near-duplicates leads from one to the other. Every pair is compared; no model
    is loaded.
    """

    from vlm.index import open_index
    from vlm.vectors import near_groups

    found = open_index(index)
    ids, vectors = found.vectors()
    groups = [[ids[row] for row in group] for group in near_groups(vectors, threshold)]
    if as_json:
        emit({"groups": groups})
        return
    for group in groups:
        print("\n".join(shown_path(id) for id in group), end="\n\n")
    print(f"{len(groups)} groups, {sum(map(len, groups))} of {len(ids)} entries")
