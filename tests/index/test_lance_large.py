"""The LanceDB index beyond memory: partitions that are visited, and entries that they do not hold yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="lancedb is not installed")

from vlm.index import lance_partitions as partitions
from vlm.index import lance_upkeep as upkeep
from vlm.index.base import Vectors
from vlm.index.lance import LanceIndex

WIDTH = 32


def spread(count: int, seed: int = 0) -> Vectors:
    """In every direction alike: partitions say nothing of what is near."""
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def clustered(count: int, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((200, WIDTH))
    vectors = centres[rng.integers(200, size=count)] + 0.3 * rng.standard_normal((count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("kind", "least", "most"), [(clustered, 2, 50), (spread, 100, 125)])
def test_as_many_partitions_are_visited_as_the_vectors_need(
    kind: object, least: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(kind)
    monkeypatch.setattr(partitions, "SIZE", 64)
    monkeypatch.setattr(partitions, "LEAST_PROBES", 1)
    vectors, queries = kind(8000), kind(50, seed=7)
    index = LanceIndex.create(tmp_path / "i", WIDTH, "m", exact_limit=1000)
    index.upsert([str(row) for row in range(len(vectors))], vectors)
    index.commit()
    index.wait()
    known = index._stored._partitions
    assert known is not None
    assert least <= known.probes <= most
    wanted = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    found = index.search(queries, 10)
    shared = [len({hit.id for hit in hits} & set(map(str, rows))) for hits, rows in zip(found, wanted, strict=True)]
    assert np.mean(shared) >= 9.9
    index.close()
    assert LanceIndex.open(tmp_path / "i", exact_limit=1000)._stored._partitions == known


def test_it_equals_a_plain_scan_while_everything_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ROWS", 150)
    monkeypatch.setattr(partitions, "LEAST_PROBES", 1000)  # all of them: what is tested is which entries there are
    rng = np.random.default_rng(3)
    index = LanceIndex.create(tmp_path / "i", WIDTH, "m", exact_limit=300)
    mirror: dict[str, tuple[Vectors, int]] = {}
    for turn in range(60):
        ids = [str(number) for number in rng.choice(900, size=30, replace=False)]
        if turn % 4 == 3:
            assert index.delete(ids) == sum(id in mirror for id in ids)
            for id in ids:
                mirror.pop(id, None)
        else:
            vectors = spread(len(ids), seed=turn)
            index.upsert(ids, vectors, [{"turn": turn}] * len(ids))
            mirror.update({id: (vector, turn) for id, vector in zip(ids, vectors, strict=True)})
        if turn % 20 == 13:
            index.commit()
            index.close()
            index = LanceIndex.open(tmp_path / "i", exact_limit=300)
        rows = np.stack([vector for vector, _ in mirror.values()])
        queries = spread(3, seed=1000 + turn)
        for where in (None, {"turn": {"gte": turn - 5}}):
            fits = [id for id, (_, made) in mirror.items() if where is None or made >= turn - 5]
            scores = dict(zip(mirror, (rows @ queries.T), strict=True))
            for number, hits in enumerate(index.search(queries, 5, where=where)):
                wanted = sorted(fits, key=lambda id, n=number: -scores[id][n])[:5]  # type: ignore[misc]
                assert [hit.id for hit in hits] == wanted
                assert [hit.metadata["turn"] for hit in hits] == [mirror[id][1] for id in wanted]
    index.wait()
    assert index._memory is None
    assert (len(index), set(index)) == (len(mirror), set(mirror))
