"""`vlm embed --to FOLDER.parquet`: a collection of any size, a shard at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlm.cli.output import emit, say, working
from vlm.cli.session import lazy_model, sampling_of, space_of
from vlm.cli.told import Told
from vlm.errors import BadInput

if TYPE_CHECKING:
    from vlm.ingest.job import Model


def embed_folder(
    source: str,
    to: Path,
    *,
    engine: str,
    workers: int | None,
    shard_items: int,
    column: str | None,
    below: Path | None,
    width: int | None,
    model: str,
    frames: int | None,
    sampling: str | None,
    offline: bool,
    as_json: bool,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Plan the shards, do those that are not there, say what was done."""
    from vlm.ingest.embedding import check_engine, embed_collection, missing
    from vlm.ingest.job import Job
    from vlm.ingest.plan import prepare
    from vlm.ingest.sources import open_source
    from vlm.weights.parts import network_is_off

    check_engine(engine)
    if workers is not None and engine == "local":
        raise BadInput("--workers: expected --engine ray; local is this process")
    lazy_model(model, offline, device=device, dtype=dtype)  # there is such a model
    sampling_of(model, frames, sampling)
    name, full = space_of(model)
    if width is not None and width > full:
        raise BadInput(f"--width {width}: expected at most {full}, the width of model {model}'s vectors")
    settings = {"frames": frames, "sampling": sampling}
    with working("planning"):
        found = open_source(source, column, below, in_place=True)
        plan = prepare(to.absolute(), found, name, width or full, settings, shard_items)
    load = partial(_model, model, width, frames, sampling, offline or network_is_off(), device, dtype)
    if engine == "ray":
        _pull(model, offline)
    left = sum(map(plan.size, missing(to, plan)))
    with working("embedding", left) as advance:
        done = embed_collection(Job(to.absolute(), load), engine=engine, workers=workers, advance=advance)
    told = Told(done.skipped)
    told.notes.add_all(found.notes)
    told.notes.add_all(done.notes)
    left_out = told.say()
    there = f", {done.before} were there" if done.before else ""
    say(f"{done.embedded} embedded{there}, {len(done.skipped)} of {plan.items} cannot be read")
    if as_json:
        counts = {"count": plan.items - len(done.skipped), "embedded": done.embedded, "shards": done.shards}
        emit({"written": str(to), **counts, **left_out})
    else:
        print(f"{to}: {plan.items - len(done.skipped)} vectors in {done.shards} shards")
    told.end()


def _model(
    name: str, width: int | None, frames: int | None, sampling: str | None, offline: bool, device: str, dtype: str
) -> Model:
    """In the process that embeds, which may be another."""
    from vlm.ingest.job import Model
    from vlm.vectors import shortened

    loaded = lazy_model(name, offline, device=device, dtype=dtype, only=("images",))()
    return Model(
        lambda media: shortened(loaded.embed_images(media), width), sampling_of(name, frames, sampling), offline
    )


def _pull(name: str, offline: bool) -> None:
    """The model's parts once, before several processes want them."""
    from vlm import assets
    from vlm.models.card import load_card
    from vlm.models.parts import pull
    from vlm.weights import hub

    if not Path(name).expanduser().is_dir() and not hub.is_repository(name):
        with working(f"pulling {name}") as advance:
            path = assets.find_card("configs/models", name, "model")
            pull(load_card(str(path)), offline=offline, report=lambda line: advance(0, line))
