"""`vlm reindex`: the collections of a service embedded anew by another model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.options import AsJson, Device, Dtype, Offline
from vlm.cli.output import emit, say, working
from vlm.cli.told import Told
from vlm.errors import BadInput, VlmError

if TYPE_CHECKING:
    from vlm.server.retrieval.reindexing import Found


def reindex(
    root: Annotated[
        Path, typer.Argument(metavar="SERVICE_ROOT", help="The --root of a `vlm serve retrieval` that is not running.")
    ],
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME", help="A model of `vlm models`, or `colours`: of it they are then."),
    ],
    collection: Annotated[
        list[str] | None, typer.Option("--collection", metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    media: Annotated[
        list[Path] | None, typer.Option("--media", metavar="DIR", help="A folder whose files were named by path.")
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out items without an original, instead of refusing them.")
    ] = False,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Embed the collections of a service anew with another model, from their texts, clips and original pictures.

    Pictures are kept as they came by `vlm serve retrieval --keep-originals`; those named by path are read from --media.
    Ids, metadata and media stay, snapshots go. A collection with an item that has no original is left as it is, or with
    --leave-out made without it; the exit code is 2 then. A collection is the old one until the new one is whole.
    """
    try:
        from vlm.server.embedding.embedder import EMBEDDERS, loaded, space_named
        from vlm.server.retrieval.alone import alone
        from vlm.server.retrieval.reindexing import reindex as run
        from vlm.server.retrieval.reindexing import survey
    except ModuleNotFoundError as error:
        raise VlmError(f"the server needs {error.name} (pip: vlm[serve])") from None
    from vlm.cli.session import check_model

    if model not in EMBEDDERS:
        check_model(model)
    for folder in (root, *(media or ())):
        if not folder.is_dir():
            raise BadInput(f"{folder}: expected a folder, got none")
    root, roots = root.resolve(), [folder.resolve() for folder in media or ()]
    with alone(root):
        with working("look for originals"):
            found = survey(root, collection or (), space_named(model), roots, leave_out=leave_out)
        if ready := [one for one in found if one.status == "other"]:
            with working("reindex", sum(one.items - len(one.lost) for one in ready)) as advance:
                run(root, ready, loaded(model, offline, device, dtype), roots, leave_out=leave_out, advance=advance)
    _report(found, model, as_json)


def _report(found: list[Found], model: str, as_json: bool) -> None:
    told = Told()
    for one in found:
        if one.status == "refused":
            lost = "; ".join(f"{count} of {one.items} items: {reason}" for reason, count in one.reasons.items())
            hint = "" if len(one.lost) == one.items else " (--leave-out leaves them out)"
            say(f"{one.name}: left as it is: {one.reason or lost + hint}")
        elif one.status == "reindexed":
            if one.snapshots:
                told.notes.add(one.name, f"snapshots of the old model are gone: {one.snapshots}")
            for id, reason in one.lost.items():
                told.notes.add(f"{one.name}/{id}", f"left out: {reason}")
    notes = told.say()
    if as_json:
        emit({"model": model, "collections": [_as_json(one) for one in found], **notes})
    for one in found if not as_json else ():
        if one.status == "reindexed":
            print(f"{one.name}: {one.items - len(one.lost)} embedded anew by {model}, {len(one.lost)} left out")
        elif one.status == "unchanged":
            print(f"{one.name}: is of {model}")
    if any(one.status == "refused" or one.lost for one in found):
        raise typer.Exit(2)


def _as_json(one: Found) -> dict[str, object]:
    left_out = one.lost if one.status == "reindexed" else {}
    return {
        "name": one.name,
        "status": one.status,
        "items": one.items,
        "snapshots": one.snapshots,
        "left_out": [{"id": id, "reason": reason} for id, reason in left_out.items()],
        **({"reason": one.reason} if one.reason else {}),
        **({"without_original": one.reasons} if one.status == "refused" else {}),
    }
