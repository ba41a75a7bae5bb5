"""One process's part of embedding a collection: a plan's shards, each read, embedded and written whole."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput, VlmError
from vlm.files import atomic_path
from vlm.index.base import Vectors
from vlm.ingest import reading
from vlm.ingest.item import Item
from vlm.ingest.plan import file_name, items_of, open_plan
from vlm.ingest.reading import Read, fetched, stamp_of
from vlm.ingest.sync import AHEAD, BATCH, THREADS
from vlm.media.open import Media
from vlm.media.video.sampling.base import Sampler

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
            for batch in batches(ahead(pool, self._read, items_of(self.folder, shard))):
                media = [read.media for read in batch if read.media is not None]
                rows = iter(self._model.embed(media) if media else ())
                vectors += [None if read.media is None else next(rows) for read in batch]
                reads += [replace(read, media=None) for read in batch]  # no pixels are kept
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
        return replace(read, item=item)

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
            "notes": pa.array([list(read.notes) for read in reads], pa.list_(pa.string())),
        }
        table = pa.table(columns).replace_schema_metadata({"plan": self.plan.digest, "shard": str(shard)})
        with atomic_path(self.folder / file_name(shard)) as temporary:
            parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _metadata(read: Read, origin: str) -> dict[str, Any]:
    """As `vlm.ingest.sync` keeps it, so that an index filled from here is up to date with the source."""
    return {**read.item.metadata, "file": {"sha256": read.sha256, "stamp": read.stamp, "from": origin}}


def ahead(pool: ThreadPoolExecutor, read: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[Read]:
    """What threads read while the model embeds, in order, so much ahead and no more."""
    coming: deque[Future[Read]] = deque()
    for item in items:
        coming.append(pool.submit(read, item))
        if len(coming) > BATCH * AHEAD:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def batches(reads: Iterable[Read]) -> Iterator[list[Read]]:
    batch: list[Read] = []
    for read in reads:
        batch.append(read)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
