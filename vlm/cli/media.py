"""`vlm ask`, `vlm embed`: what a model says of a picture or clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vlm.cli.embedding import embed_folder
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
    Width,
)
from vlm.cli.output import emit
from vlm.cli.session import budget_teller, expand, lazy_model, map_media, sampling_of
from vlm.cli.told import Told
from vlm.conversation.texts import check_texts
from vlm.errors import BadInput


def ask(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A picture, a video, or a URL.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.")],
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
    """Answer a question about a picture or video. What it costs in tokens is said before, on stderr."""
    if not question.strip():
        raise BadInput("the question is empty; expected some text")
    load = lazy_model(model, offline, tiling, merge, device=device, dtype=dtype)
    chosen = sampling_of(model, frames, sampling)
    told = Told()
    done = map_media(
        [path],
        lambda media: load().answer(media, [question]),
        told,
        label="answer",
        offline=offline,
        sampling=chosen,
        check=budget_teller(load, [question]),
    )
    if told.skipped:
        raise BadInput(told.skipped[0].reason)
    notes = told.say()
    if as_json:
        emit({"results": [{"input": item, "question": question, "answer": text} for item, text in done], **notes})
    else:
        print(done[0][1])


def embed(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Pictures, videos, URLs, or folders of them.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", metavar="TEXT", help="A text; may be repeated.")] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write a safetensors file, or a folder NAME.parquet of shards."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="ENGINE", help="Of a folder: local (this process) or ray (one for each CPU)."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Processes of --engine ray.")
    ] = None,
    shard: Annotated[
        int, typer.Option("--shard", min=1, metavar="N", help="Items in a file of a folder; a kill costs one file.")
    ] = 1000,
    column: Column = None,
    below: Below = None,
    width: Width = None,
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Give vectors of pictures, videos and texts.

    They are of unit length and lie in one space: inner products are similarities. NAME.parquet is for a collection of
    any size, of any kind that `vlm index` reads; after a kill the same command goes on where it was.
    """
    if engine is not None or (to is not None and to.suffix == ".parquet"):
        if to is None or text or len(paths or []) != 1:
            raise BadInput("a folder of vectors: expected one SOURCE, --to FOLDER and no --text")
        one = (paths or [""])[0]
        embed_folder(
            one, to, engine=engine or "local", workers=workers, shard_items=shard, column=column, below=below,
            width=width, model=model, frames=frames, sampling=sampling, offline=offline, as_json=as_json,
            device=device, dtype=dtype,
        )  # fmt: skip
        return
    texts = text or []
    if not paths and not texts:
        raise BadInput("nothing to embed: give a PATH or --text TEXT")
    if texts:
        check_texts(texts)
    only = [*(["images"] if paths else []), *(["texts"] if texts else [])]
    load = lazy_model(model, offline, device=device, dtype=dtype, only=only)
    chosen = sampling_of(model, frames, sampling)
    told = Told()
    inputs = expand(paths or [], told)
    from vlm.vectors import shortened

    done = map_media(
        inputs,
        lambda media: shortened(load().embed_images(media), width),
        told,
        label="vectors",
        offline=offline,
        sampling=chosen,
    )
    if texts:
        done += zip(texts, shortened(load().embed_texts(texts), width), strict=True)
        told.texts(texts, load().text_notes(texts))
    left_out = told.say()
    if to is not None and done:
        import numpy as np
        from safetensors.numpy import save

        from vlm.files import atomic_write

        names = json.dumps([name for name, _ in done])
        atomic_write(to, save({"vectors": np.stack([vector for _, vector in done])}, metadata={"inputs": names}))
    written = {"written": str(to) if done else None, "count": len(done)}
    printed = [{"input": name, "vector": [float(f"{x:.8g}") for x in vector]} for name, vector in done]
    if as_json:
        emit({**(written if to is not None else {"results": printed}), **left_out})
    elif to is not None:
        print(f"{to}: {len(done)} vectors")
    else:
        for row in printed:
            print(json.dumps(row))
    told.end()
