"""`vlm bench retrieval`: the first ten of many vectors, one query and 64 at a time, against other engines' defaults.

A process for each size builds ours once and the peers one after another, saying how long that takes and how much memory
it needs, and asks ours and each peer in turns. Recall is against the exact order.
"""

from __future__ import annotations

import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vlm.bench.retrieval_engines import PEERS, TOP, Engine, Ids, Search, ours
from vlm.bench.timing import Missing, Ratio, Result, Say, alternate, in_new_process, peak_here
from vlm.index.base import Vectors

SIZES = (10_000, 100_000, 1_000_000)
WIDTHS = (256, 512)
QUERIES = (1, 64)
ASKED = 64
CLUSTER, SPREAD, DECAY = 3000, 0.8, 0.5
"""Vectors of a cluster on average; how far from its centre they lie, relative to the centre's length; how fast the
variance of the principal directions falls."""
LEAST_RECALL = 0.99
CALLS = 50
"""Of one query, for percentiles; a tenth of it of 64."""


def run(rounds: int = 5, say: Say = lambda text: None, limit: int = 100_000) -> Iterator[Result]:
    """Each comparison as soon as its size is measured, up to `limit` vectors."""
    for count in [size for size in SIZES if size <= limit] or [limit]:
        for width in WIDTHS:
            say(f"{count:,} of {width}")
            yield from in_new_process(partial(_compare, count, width), rounds)


@dataclass
class Built:
    """An engine that holds the vectors, and what it cost and finds."""

    search: Search
    said: str
    recall: float


def _compare(count: int, width: int, rounds: int) -> list[Result]:
    vectors, asked = data(count, width)
    wanted = exact(vectors, asked)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        mine = _built(ours, vectors, asked, wanted, Path(folder) / "ours")
        if mine.recall < LEAST_RECALL:
            raise AssertionError(f"{count:,} vectors of {width}: recall {mine.recall:.3f} of ours")
        for number, (name, peer) in enumerate(PEERS.items()):
            what = f"search of {count:,} vectors of {width}"
            if importlib.util.find_spec(peer.package) is None:
                results.append(Missing(what, name, f"{peer.package} is not installed"))
            elif count > peer.most:
                results.append(Missing(what, name, f"not made for more than {peer.most:,}"))
            else:
                other = _built(peer.engine, vectors, asked, wanted, Path(folder) / str(number))
                results += [_ratio(name, mine, other, asked, queries, count, width, rounds) for queries in QUERIES]
                del other
                gc.collect()
    return results


def _ratio(
    name: str, mine: Built, other: Built, asked: Vectors, queries: int, count: int, width: int, rounds: int
) -> Ratio:
    said = "; ".join(
        f"{who}: {_percentiles(side.search, asked, queries)}, {side.said}"
        for who, side in (("ours", mine), (name, other))
    )
    batches = [asked[start : start + queries] for start in range(0, ASKED, queries)][:8]
    ask_mine, ask_other = (partial(_all, side.search, batches) for side in (mine, other))
    ratio = alternate(f"{queries} of {count:,} vectors of {width}", name, ask_mine, ask_other, rounds, said)
    each = len(batches)
    return replace(ratio, ours_seconds=ratio.ours_seconds / each, peer_seconds=ratio.peer_seconds / each)


def _built(engine: Engine, vectors: Vectors, asked: Vectors, wanted: Ids, folder: Path) -> Built:
    # Threads and tables of the libraries are there before memory is counted.
    engine(vectors[:256], folder / "first")(vectors[:1])
    made: list[Search] = []
    began = time.perf_counter()
    peak = peak_here(lambda: made.append(engine(vectors, folder / "whole")))
    memory = "" if peak is None else f" with {peak:.0f} MB at most"
    cost = f"built in {time.perf_counter() - began:.3g} s{memory}"
    recall = _recall(made[0](asked), wanted)
    return Built(made[0], f"recall {recall:.3f}, {cost}", recall)


def _all(search: Search, batches: list[Vectors]) -> None:
    for batch in batches:
        search(batch)


def _percentiles(search: Search, asked: Vectors, queries: int) -> str:
    seconds = []
    for call in range(CALLS if queries == 1 else max(2, CALLS // 10)):
        start = call * queries % ASKED
        began = time.perf_counter()
        search(asked[start : start + queries])
        seconds.append(1e3 * (time.perf_counter() - began))
    p50, p99 = statistics.median(seconds), float(np.percentile(seconds, 99))
    return f"p50 {p50:.3g} ms, p99 {p99:.3g} ms"


def _recall(found: Ids, wanted: Ids) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)]))


def data(count: int, width: int) -> tuple[Vectors, Vectors]:
    """Unit vectors `[count, width]` in clusters of unequal size, and `[64, width]` queries of the same kind.

    As embeddings do, they vary much in few directions and little in many.
    """
    rng = np.random.default_rng(count + width)
    scale_D = ((1 + np.arange(width) / 16) ** -DECAY).astype(np.float32)
    shares = rng.dirichlet(np.ones(max(1, count // CLUSTER)))
    centres = rng.standard_normal((len(shares), width), dtype=np.float32)
    turned = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)

    def drawn(number: int) -> Vectors:
        rows = rng.standard_normal((number, width), dtype=np.float32)
        rows *= SPREAD
        rows += centres[rng.choice(len(centres), size=number, p=shares)]
        rows *= scale_D
        rows @= turned
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return drawn(count), drawn(ASKED)


def exact(vectors: Vectors, asked: Vectors) -> Ids:
    """The true order, a slice of the vectors at a time."""
    scores, rows = np.zeros((len(asked), 0), dtype=np.float32), np.zeros((len(asked), 0), dtype=np.int64)
    for start in range(0, len(vectors), 65536):
        part = asked @ vectors[start : start + 65536].T
        scores = np.concatenate([scores, part], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows.tolist()
