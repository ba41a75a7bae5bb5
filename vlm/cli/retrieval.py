"""`vlm search`: find pictures and clips by words or by a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm.cli.options import AsJson, Index, ModelName, Offline
from vlm.cli.output import emit, table
from vlm.cli.session import lazy_model, open_input, sampling_of, space_of
from vlm.errors import BadInput


def search(
    index: Index,
    query: Annotated[str, typer.Argument(metavar="QUERY|IMAGE", help="Some words, or a picture's or video's path.")],
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many hits.")] = 5,
    model: ModelName = "nano",
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Search an index by words or by a picture."""
    from vlm.index.flat import FlatIndex
    from vlm.vision.images import is_image, is_video
    from vlm.vision.urls import is_url

    if not query.strip():
        raise BadInput("the query is empty; expected some words or a picture's path")
    load = lazy_model(model, offline)
    media = (
        open_input(query, offline, sampling_of(model)) if is_image(query) or is_video(query) or is_url(query) else None
    )
    found = FlatIndex.open(index, model=space_of(model)[0])
    vectors = load().embed_images([media]) if media is not None else load().embed_texts([query])
    hits = [{"path": hit.id, "score": round(hit.score, 6)} for hit in found.search(vectors, top)[0]]
    if as_json:
        emit({"results": hits})
    else:
        table(["score", "path"], [[f"{hit['score']:.3f}", _short(str(hit["path"]))] for hit in hits])


def _short(path: str) -> str:
    """A path below the working folder as the user would write it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
