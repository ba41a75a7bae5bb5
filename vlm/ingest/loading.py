"""Vectors that are there already into an index: a folder of `vlm.ingest.embedding`, no model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput
from vlm.index.base import Index
from vlm.ingest.embedding import missing
from vlm.ingest.plan import file_name, open_plan
from vlm.ingest.sync import COMMIT_SECONDS, Synced
from vlm.media.open import Skipped


def load(index: Index, folder: Path, *, advance: Callable[[int, str], None] = lambda done, text: None) -> Synced:
    """Store what is not in `index` yet; vectors are shortened to the index's width.

    Afterwards the index is up to date with the collection that was embedded: `sync` finds it unchanged. A kill costs
    what came after the last commit. Raises `BadInput` where shards are missing or damaged.
    """
    plan, done = open_plan(folder), Synced()
    if absent := missing(folder, plan):
        count = f"{len(absent)} of {plan.shards}"
        raise BadInput(f"{folder}: expected all its shards, {count} are not there yet; run `vlm embed` again")
    committed = time.monotonic()
    try:
        for shard in range(plan.shards):
            _store(index, folder / file_name(shard), plan.width, done)
            advance(min((shard + 1) * plan.shard_items, plan.items), f"{done.moved} stored")
            if time.monotonic() - committed > COMMIT_SECONDS:
                index.commit()
                committed = time.monotonic()
    finally:
        if done.moved:
            index.commit()
    return done


def _store(index: Index, file: Path, width: int, done: Synced) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file, page_checksum_verification=True)
        vectors_ND = np.asarray(table["vector"].combine_chunks().values, np.float32).reshape(len(table), width)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        got = " ".join(str(error).split())[:120]
        raise BadInput(f"{file}: expected a shard of vectors, got: {got}; delete it and embed again") from None
    new: list[tuple[int, str, dict[str, Any]]] = []
    known = index.known(table["id"].to_pylist())
    rows = zip(*(table[name].to_pylist() for name in ("id", "metadata", "problem")), strict=True)
    for row, (id, text, problem) in enumerate(rows):
        metadata = json.loads(text)
        if problem is not None:
            done.skipped.append(Skipped(id, problem))
        elif known.get(id) == metadata:
            done.unchanged += 1
        else:
            new.append((row, id, metadata))
    if new:
        chosen, ids, metadata_N = zip(*new, strict=True)
        vectors = vectors_ND[list(chosen)]
        if index.width != width:
            from vlm.vectors import shortened  # brings the models' libraries along

            vectors = shortened(vectors, index.width)
        index.upsert(ids, vectors, metadata_N)
        done.moved += len(new)
