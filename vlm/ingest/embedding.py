"""A large collection as a folder of parquet: shards that are embedded whole, by any number of processes, once.

A shard's file appears whole or not at all, so a kill costs the shards in work and a second run does the rest. Its
columns: `id`, `vector` (null where the item cannot be read), `metadata` (JSON, as `vlm index` keeps it) and `problem`
(why it cannot be read). Which process did a shard, and under which engine, does not show.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput, VlmError, unknown
from vlm.files import atomic_path
from vlm.heads.media import Media, Skipped
from vlm.index.base import Vectors
from vlm.index.lock import WriterLock
from vlm.ingest import reading
from vlm.ingest.plan import Plan, file_name, items_of, open_plan
from vlm.ingest.reading import Read, fetched, stamp_of
from vlm.ingest.sources import Item
from vlm.ingest.sync import AHEAD, BATCH, THREADS
from vlm.video.sampling.base import Sampler

SHARD_ITEMS = 1000
Embed = Callable[[Sequence[Media]], Vectors]


@dataclass(frozen=True)
class Model:
    """What a process that embeds has to have; what makes one can be sent to other processes."""

    embed: Embed
    """Media to unit vectors `[N, D]`."""
    sampling: Callable[[], Sampler] | None = None
    offline: bool = False


@dataclass(frozen=True)
class Job:
    """A folder with a plan, and what makes the model there."""

    folder: Path
    load: Callable[[], Model]


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


class Worker:
    """Embeds a shard at a time; every process of an engine has one. The model is loaded for the first."""

    def __init__(self, job: Job):
        self.folder, self.plan, self._load = job.folder, open_plan(job.folder), job.load
        self._model: Model | None = None

    def __call__(self, shard: int, tick: Callable[[int], None] = lambda items: None) -> int:
        """Write the shard; returns how many items it has, and tells `tick` of each batch of them."""
        self._model = self._model or self._load()
        reads: list[Read] = []
        vectors: list[Vectors | None] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in _batches(_ahead(pool, self._read, items_of(self.folder, shard))):
                media = [read.media for read in batch if read.media is not None]
                rows = iter(self._model.embed(media) if media else ())
                vectors += [None if read.media is None else next(rows) for read in batch]
                reads += [Read(read.item, read.stamp, read.sha256, None, read.problem) for read in batch]  # no pixels
                tick(len(batch))
        self._write(shard, reads, vectors)
        return len(reads)

    def _read(self, item: Item) -> Read:
        assert self._model is not None
        try:
            whole = fetched(item)
        except BadInput as error:
            return Read(item, "", problem=str(error))
        read = reading.read(whole, stamp_of(whole), {}, sampling=self._model.sampling, offline=self._model.offline)
        return Read(item, read.stamp, read.sha256, read.media, read.problem)

    def _write(self, shard: int, reads: Sequence[Read], vectors: Sequence[Vectors | None]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        width = self.plan.width
        for vector_D in vectors:
            if vector_D is not None and vector_D.shape != (width,):
                raise VlmError(f"{self.folder}: expected vectors of width {width}, got one of {list(vector_D.shape)}")
        absent = np.array([vector_D is None for vector_D in vectors])
        filled = np.zeros((len(vectors), width), np.float32)
        filled[~absent] = [vector_D for vector_D in vectors if vector_D is not None] or np.zeros((0, width))
        flat = pa.FixedSizeListArray.from_arrays(pa.array(filled.ravel()), width, mask=pa.array(absent))
        columns = {
            "id": pa.array([read.item.id for read in reads], pa.string()),
            "vector": flat,
            "metadata": pa.array([json.dumps(_metadata(read, self.plan.source)) for read in reads], pa.string()),
            "problem": pa.array([read.problem for read in reads], pa.string()),
        }
        table = pa.table(columns).replace_schema_metadata({"plan": self.plan.digest, "shard": str(shard)})
        with atomic_path(self.folder / file_name(shard)) as temporary:
            parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


Shards = Generator[int, None, None]
Engine = Callable[[Job, Sequence[int], int | None, Callable[[int], None]], Shards]
"""A job's shards by so many processes: gives the items of each shard when it is done, or tells of them in between."""


def local(
    job: Job, shards: Sequence[int], workers: int | None, tick: Callable[[int], None]
) -> Generator[int, None, None]:
    """One after another in this process."""
    worker = Worker(job)
    for shard in shards:
        worker(shard, tick)
        yield 0


def _ray(
    job: Job, shards: Sequence[int], workers: int | None, tick: Callable[[int], None]
) -> Generator[int, None, None]:
    from vlm.ingest.ray_engine import run

    return run(job, shards, workers)


ENGINES: dict[str, Engine] = {"local": local, "ray": _ray}


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
        skipped = list(_skipped(job.folder, plan))
        new = set(left)
        now = plan.items - before - sum(shard in new for shard, _ in skipped)
        return Embedded(now, before, plan.shards, [skip for _, skip in skipped])
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


def _skipped(folder: Path, plan: Plan) -> Iterator[tuple[int, Skipped]]:
    from pyarrow import parquet

    for shard in range(plan.shards):
        table = parquet.read_table(folder / file_name(shard), columns=["id", "problem"])
        if table["problem"].null_count < len(table):
            yield from ((shard, Skipped(r["id"], r["problem"])) for r in table.to_pylist() if r["problem"] is not None)


def _metadata(read: Read, origin: str) -> dict[str, Any]:
    """As `vlm.ingest.sync` keeps it, so that an index filled from here is up to date with the source."""
    return {**read.item.metadata, "file": {"sha256": read.sha256, "stamp": read.stamp, "from": origin}}


def _ahead(pool: ThreadPoolExecutor, read: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[Read]:
    """What threads read while the model embeds, in order, so much ahead and no more."""
    coming: deque[Future[Read]] = deque()
    for item in items:
        coming.append(pool.submit(read, item))
        if len(coming) > BATCH * AHEAD:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _batches(reads: Iterable[Read]) -> Iterator[list[Read]]:
    batch: list[Read] = []
    for read in reads:
        batch.append(read)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
