"""`vlm search`: find pictures and clips by words or by a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import AsJson, Device, Dtype, Index, ModelName, Offline
from vlm.cli.output import emit, say, shown_path, table, working
from vlm.cli.session import lazy_model, map_media, open_input, sampling_of, space_of
from vlm.cli.told import Told
from vlm.errors import BadInput, VlmError
from vlm.files import name_path, path_meant

if TYPE_CHECKING:
    from vlm.api import Model
    from vlm.media.video.sampling.base import Sampler


def search(
    index: Index,
    query: Annotated[str, typer.Argument(metavar="QUERY|IMAGE", help="Some words, or a picture's or video's path.")],
    also: Annotated[
        str | None, typer.Option("--with", metavar="TEXT", help='Words beside a picture: photo.jpg --with "at night".')
    ] = None,
    weight: Annotated[
        float, typer.Option("--weight", min=0.0, max=1.0, metavar="W", help="How much the words of --with count.")
    ] = 0.5,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many hits.")] = 5,
    rerank: Annotated[
        int,
        typer.Option(
            "--rerank",
            min=0,
            metavar="K",
            help="Order the best K by how likely the model finds the words; nano's are no help (docs/benchmarks.md).",
        ),
    ] = 0,
    hybrid: Annotated[
        bool,
        typer.Option("--hybrid", help='Also by the words of entries\' captions (metadata "text"), in LanceDB indexes.'),
    ] = False,
    where: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help='Entries whose metadata fit: \'{"year": {"gte": 2020}}\'.'),
    ] = None,
    least: Annotated[float | None, typer.Option("--min-score", metavar="S", help="Hits of this score or more.")] = None,
    moments: Annotated[bool, typer.Option("--moments", help="Tell when in a video the words are shown.")] = False,
    model: ModelName = "nano",
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Search an index by words, by a picture, or by both."""
    from vlm.index import open_index
    from vlm.media.urls import is_url
    from vlm.vectors import composed, shortened

    if not query.strip():
        raise BadInput("the query is empty; expected some words or a picture's path")
    told = Told()
    by_media = is_url(query) or _is_file(query, told)
    if also is not None and (not by_media or not also.strip()):
        raise BadInput("--with: expected words beside a picture or video as the query")
    if (rerank or moments) and (by_media and (also is None or rerank)):
        raise BadInput(f"{'--rerank' if rerank else '--moments'}: expected words as the query")
    if hybrid and by_media and also is None:
        raise BadInput("--hybrid: expected words, as the query or by --with")
    if hybrid and least is not None:
        raise BadInput("--min-score: expected none with --hybrid, which joins two orders and not their scores")
    fits = _filter(where)
    words = also if by_media else query
    # A search by words needs the texts' side alone; re-ranking needs the whole model.
    only = [*(["images"] if by_media or moments else []), *(["texts"] if words is not None else [])]
    load = lazy_model(model, offline, device=device, dtype=dtype, only=() if rerank else only)
    media = open_input(query, told, offline, sampling_of(model)) if by_media else None
    found = open_index(index, model=space_of(model)[0])
    vectors = [load().embed_images([media])[0]] if media is not None else []
    if words is not None:
        vectors.append(load().embed_texts([words])[0])
        told.texts([words], load().text_notes([words]))
    asked = shortened(composed(vectors, [1 - weight, weight]) if len(vectors) == 2 else vectors[0], found.width)
    if hybrid and words is not None:
        best = found.search_hybrid(asked, words, max(top, rerank), where=fits)
    else:
        best = found.search(asked[None], max(top, rerank), where=fits, min_score=least)[0]
    hits: list[dict[str, Any]] = [{"path": hit.id, "score": round(hit.score, 6)} for hit in best]
    if rerank and words is not None:
        hits = _reranked(hits, rerank, words, load, sampling_of(model), told)
    hits = hits[:top]
    if moments and words is not None:
        _tell_moments(hits, words, load)
    if as_json:
        emit({"results": hits, **told.say()})
        told.end()
        return
    told.say()
    columns = ["score", *(["match"] if rerank else []), *(["moment"] if moments else []), "path"]
    table(columns, [[_cell(hit, column) for column in columns] for hit in hits])
    told.end()


def _is_file(query: str, told: Told) -> bool:
    """Whether the query is a picture or clip: a file that is there always is one, and so is a name with its suffix."""
    from vlm.media.kinds import kind_of_name

    path = path_meant(query)
    if os.path.isdir(path):
        told.notes.add(query, "there is a folder of this name; the words are looked for")
        return False
    if os.path.lexists(path):
        return True
    kind = kind_of_name(query)
    return kind is not None and kind.medium is not None


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    from vlm.index.filters import compiled

    try:
        where = json.loads(text)
    except ValueError as error:
        raise BadInput(f"--filter: expected JSON, got {text!r:.80} ({error})") from None
    if not isinstance(where, dict):
        raise BadInput(f"--filter: expected a JSON object, got {text!r:.80}")
    compiled(where)  # refused before a model is loaded
    return where


def _reranked(
    hits: list[dict[str, Any]],
    best: int,
    words: str,
    load: Callable[[], Model],
    sampling: Callable[[], Sampler],
    told: Told,
) -> list[dict[str, Any]]:
    """The `best` first hits by the language model's score of the words; those that cannot be read any more follow."""
    first, rest = hits[:best], hits[best:]
    rows = {hit["path"]: hit for hit in first}
    scores = map_media(
        [name_path(path) for path in rows],
        lambda media: load().match(media, [words] * len(media)),
        told,
        label="rerank",
        sampling=sampling,
    )
    for path, score in scores:
        rows[path]["match"] = round(score, 6)
    return sorted(first, key=lambda hit: -hit.get("match", -inf)) + rest


def _tell_moments(hits: list[dict[str, Any]], words: str, load: Callable[[], Model]) -> None:
    """Of each hit that is a video the seconds from and to which the words fit best."""
    from vlm.media.kinds import is_video

    with working("moments", len(hits)) as advance:
        for number, hit in enumerate(hits):
            path = name_path(hit["path"])
            if is_video(path):
                try:
                    moment = load().moments(path, [words])[0][0]
                    hit["moment"] = [round(moment.start, 3), round(moment.end, 3)]
                except VlmError as error:
                    say(str(error))
            advance(number + 1, "")


def _cell(hit: dict[str, Any], column: str) -> str:
    value = hit.get(column)
    if column == "path" or value is None:
        return shown_path(value) if value else ""
    return f"{value[0]:.1f} to {value[1]:.1f} s" if column == "moment" else f"{value:.3f}"
