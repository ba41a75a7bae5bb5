"""`vlm caption`: of a few pictures and clips, of a collection into a file, of a clip's scenes with their times."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import (
    AsJson,
    Below,
    Column,
    Device,
    Dtype,
    Frames,
    Merge,
    ModelName,
    Offline,
    Sampling,
    Tiling,
)
from vlm.cli.output import emit, say, table, working
from vlm.cli.session import budget_teller, expand, lazy_model, map_media, sampling_of
from vlm.cli.told import Told
from vlm.errors import BadInput
from vlm.files import name_text, path_meant

if TYPE_CHECKING:
    from vlm.api import Model
    from vlm.ingest.item import Item
    from vlm.media.open import Media
    from vlm.media.video.sampling.base import Sampler

    Write = Callable[[Sequence[Media]], Sequence[str]]
    """Captions of what is open."""


def caption(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Pictures, videos, URLs, or folders of them.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write .jsonl or .csv as captions come; with --dense .srt or .vtt."),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Of one clip a caption of each scene, with its times.")
    ] = False,
    window: Annotated[
        float | None, typer.Option("--window", metavar="SECONDS", help="With --dense: so long, instead of scenes.")
    ] = None,
    column: Column = None,
    below: Below = None,
    beams: Annotated[
        int,
        typer.Option("--beams", min=1, max=32, metavar="N", help="Search with so many beams for a likelier caption."),
    ] = 1,
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    tiling: Tiling = None,
    merge: Merge = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Write a caption for each picture or video. What each costs in tokens is said before, on stderr.

    Inputs that cannot be read are reported on stderr, the others are done; the exit code is 2 if there were any. With
    --to, PATH may also be a list, table or tar of pictures (as `vlm index` reads them), and after a kill the same
    command goes on where it was.
    """
    load = lazy_model(model, offline, tiling, merge, device=device, dtype=dtype)
    chosen, told = sampling_of(model, frames, sampling), Told()

    def write(media: Sequence[Media]) -> Sequence[str]:
        return load().caption(media, beams=beams)

    if dense:
        if len(paths) != 1 or column is not None or below is not None:
            raise BadInput("--dense: expected one clip, and no --column or --below")
        _dense(paths[0], to, window, load, write, chosen, told, as_json)
        return
    if window is not None:
        raise BadInput("--window: expected --dense with it")
    if to is not None:
        written_by = model if beams == 1 else f"{model}, {beams} beams"
        _collection(
            paths, to, written_by, load, write, chosen, told, column=column, below=below, offline=offline,
            as_json=as_json,
        )  # fmt: skip
        return
    if column is not None or below is not None:
        raise BadInput("--column, --below: expected --to FILE, for captions of a collection")
    inputs = expand(paths, told)
    done = map_media(
        inputs,
        write,
        told,
        label="captions",
        offline=offline,
        sampling=chosen,
        check=budget_teller(load),
    )
    left_out = told.say()
    if as_json:
        emit({"results": [{"input": item, "caption": text} for item, text in done], **left_out})
    else:
        for item, text in done:
            print(f"{item}: {text}" if len(inputs) > 1 else text)
    told.end()


def _collection(
    paths: list[str], to: Path, model: str, load: Callable[[], Model], write: Write, chosen: Callable[[], Sampler],
    told: Told, *, column: str | None, below: Path | None, offline: bool, as_json: bool,
) -> None:  # fmt: skip
    from vlm.ingest.captions import CaptionFile, caption_all
    from vlm.weights.parts import network_is_off

    with CaptionFile(to, model) as file:
        if file.mended:
            told.notes.add(name_text(to), "a last row that was not whole, cut off and made again")
        with working("counting"):
            left = {item.id for item in _items(paths, column, below, Told())} - file.there
        if left:
            load()
        with working("captions", len(left)) as advance:
            done = caption_all(
                file,
                _items(paths, column, below, told),
                write,
                check=lambda media: load().budget([media])[0].check(),
                sampling=chosen,
                offline=offline or network_is_off(),
                advance=advance,
            )
    told.skipped += done.skipped
    told.notes.add_all(done.notes)
    left_out = told.say()
    say(f"{done.written} captioned, {done.before} were there, {len(told.skipped)} skipped")
    count = done.written + done.before
    if as_json:
        emit({"written": str(to), "count": count, "captioned": done.written, **left_out})
    else:
        print(f"{to}: {count} captions")
    told.end()


def _items(paths: list[str], column: str | None, below: Path | None, told: Told) -> Iterator[Item]:
    """Of all sources; one that cannot be read, or not to its end, is skipped from there on."""
    from vlm.ingest.item import Item
    from vlm.ingest.sources import is_source, open_source
    from vlm.media.urls import is_url

    for path in paths:
        if is_url(path):
            yield Item(path, path)
            continue
        place = path_meant(os.path.expanduser(path))
        if not is_source(place):
            yield Item(name_text(os.path.abspath(place)), os.path.abspath(place))
            continue
        try:
            source = open_source(place, column, below, in_place=not place.endswith((".gz", ".tgz")))
            yield from source.items
            told.notes.add_all(source.notes)
        except BadInput as error:
            told.skip(path, error)


def _dense(
    path: str, to: Path | None, window: float | None, load: Callable[[], Model], write: Write,
    chosen: Callable[[], Sampler], told: Told, as_json: bool,
) -> None:  # fmt: skip
    from vlm.files import atomic_write
    from vlm.heads.dense import dense_captions
    from vlm.media.subtitles import FORMATS

    if to is not None and to.suffix not in FORMATS:
        raise BadInput(f"{to}: expected a file of {' or '.join(FORMATS)}, got {to.suffix or 'no suffix'}")
    told_once: list[Any] = []

    def opened(media: Any) -> None:
        if not told_once:
            told_once.append(told.opened(media))

    with working("captions") as advance:
        cues = dense_captions(
            path_meant(path),
            write,
            chosen(),
            window=window,
            check=lambda media: load().budget([media])[0].check(),
            opened=opened,
            advance=lambda done, total: advance(done, f"captions: {done} of {total}"),
        )
    left_out = told.say()
    rows = [{"start": round(cue.start, 3), "end": round(cue.end, 3), "caption": cue.text} for cue in cues]
    if to is not None:
        atomic_write(to, FORMATS[to.suffix](cues))
    if as_json:
        emit({"input": name_text(path), **({"written": str(to)} if to else {}), "results": rows, **left_out})
    elif to is not None:
        print(f"{to}: {len(cues)} captions")
    else:
        table(["start", "end", "caption"], [[f"{c.start:.2f}", f"{c.end:.2f}", c.text] for c in cues])
