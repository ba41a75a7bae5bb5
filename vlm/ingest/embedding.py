"""A large collection as a folder of parquet: shards that are embedded whole, by any number of processes, once.

A shard's file appears whole or not at all, so a kill costs the shards in work and a second run does the rest. Its
columns: `id`, `vector` (null where the item cannot be read), `metadata` (JSON, as `vlm index` keeps it) and `problem`
(why it cannot be read). Which process did a shard, and under which engine, does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from vlm.errors import BadInput, VlmError, unknown
from vlm.index.lock import WriterLock
from vlm.ingest.job import Job, Worker
from vlm.ingest.plan import Plan, file_name, open_plan
from vlm.media.open import Skipped
from vlm.notes import Notes
from vlm.registry import Registry

SHARD_ITEMS = 1000


@dataclass
class Embedded:
    """What a run did, and what the folder holds now."""

    embedded: int = 0
    """Items of this run, without those skipped."""
    before: int = 0
    """Items of shards that were there."""
    shards: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    """Of the whole folder."""
    notes: Notes = field(default_factory=Notes)
    """On what was changed of the pictures of the whole folder to show them."""


Shards = Generator[int, None, None]
Engine = Callable[[Job, Sequence[int], int | None, Callable[[int], None]], Shards]
"""A job's shards by so many processes: gives the items of each shard when it is done, or tells of them in between."""

ENGINES: Registry[Engine] = Registry(
    "engine", {"local": "vlm.ingest.embedding:local", "ray": "vlm.ingest.ray_engine:run"}
)


def local(
    job: Job, shards: Sequence[int], workers: int | None, tick: Callable[[int], None]
) -> Generator[int, None, None]:
    """One after another in this process."""
    worker = Worker(job)
    for shard in shards:
        worker(shard, tick)
        yield 0


def check_engine(engine: str) -> None:
    """Raises `BadInput` for an engine there is not, or whose packages are not installed."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    for package in ("pyarrow", "ray") if engine == "ray" else ("pyarrow",):
        if find_spec(package) is None:
            extra = "ray" if engine == "ray" else "eval"
            raise BadInput(f"engine {engine}: needs the package {package}, which is not installed: "
                           f"pip install 'vlm[{extra}]'")  # fmt: skip


def embed_collection(
    job: Job,
    *,
    engine: str = "local",
    workers: int | None = None,
    advance: Callable[[int, str], None] = lambda done, text: None,
) -> Embedded:
    """Do the shards of a plan that are not there yet.

    `advance` is told how many of the items left are done, and the rate. Raises `VlmError` where another run is at it,
    or a process fails for good; what was done until then stays.
    """
    check_engine(engine)
    plan, lock = open_plan(job.folder), WriterLock(job.folder / ".lock")
    try:
        lock.acquire(str(job.folder))
    except VlmError:
        raise VlmError(f"{job.folder}: another run is embedding into it; try again when it has ended") from None
    try:
        for stray in job.folder.glob(".[0-9]*"):  # of a run that was killed
            stray.unlink()
        left = missing(job.folder, plan)
        before = plan.items - sum(map(plan.size, left))
        done, began = 0, time.monotonic()

        def tick(items: int) -> None:
            nonlocal done
            done += items
            advance(done, f"embedding, {done / (time.monotonic() - began):.3g} a second")

        if left:
            with closing(ENGINES[engine](job, left, workers, tick)) as done_shards:
                for items in done_shards:
                    tick(items)
        skipped, notes = _told(job.folder, plan)
        new = set(left)
        now = plan.items - before - sum(shard in new for shard, _ in skipped)
        return Embedded(now, before, plan.shards, [skip for _, skip in skipped], notes)
    finally:
        lock.release()


def missing(folder: Path, plan: Plan) -> list[int]:
    """The shards that are not there yet."""
    return [shard for shard in range(plan.shards) if not is_done(folder, plan, shard)]


def is_done(folder: Path, plan: Plan, shard: int) -> bool:
    """Whether the shard's file is there, whole, and of this plan."""
    from pyarrow import ArrowException, parquet

    try:
        written = parquet.read_metadata(folder / file_name(shard))
    except (OSError, ArrowException):
        return False
    said = written.metadata or {}
    return (written.num_rows, said.get(b"plan"), said.get(b"shard")) == (
        plan.size(shard), plan.digest.encode(), str(shard).encode()
    )  # fmt: skip


def _told(folder: Path, plan: Plan) -> tuple[list[tuple[int, Skipped]], Notes]:
    """What was skipped, each with its shard, and what was noted."""
    from pyarrow import parquet

    skipped: list[tuple[int, Skipped]] = []
    notes = Notes()
    for shard in range(plan.shards):
        file = parquet.ParquetFile(folder / file_name(shard))
        # A shard of an earlier version has no notes.
        columns = [name for name in ("id", "problem", "notes") if name in file.schema_arrow.names]
        for row in file.read(columns=columns).to_pylist():
            notes.extend(row["id"], row.get("notes") or ())
            if row["problem"] is not None:
                skipped.append((shard, Skipped(row["id"], row["problem"])))
    return skipped, notes
