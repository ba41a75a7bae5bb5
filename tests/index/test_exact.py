"""The fast exact scan gives the plain scan's answer, to the last bit, whatever the vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.index import memory
from vlm.index.exact import BLOCK, Rough, best, plain
from vlm.index.memory import Entries


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def spread(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return unit(rng.normal(size=(count, width)))


def clustered(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A few clusters so tight that bfloat16 cannot tell their members apart."""
    centres = rng.normal(size=(5, width))
    return unit(centres[rng.integers(5, size=count)] + 1e-4 * rng.normal(size=(count, width)))


def doubled(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Every vector some nine times, in no order."""
    return spread(count // 9 + 1, width, rng)[rng.integers(count // 9 + 1, size=count)]


def lone(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """All the same."""
    return np.repeat(spread(1, width, rng), count, axis=0)


KINDS = [spread, clustered, doubled, lone]


def expected(vectors: np.ndarray, queries: np.ndarray, top: int) -> list[list[tuple[str, float]]]:
    found = []
    for query in queries:
        scores = plain(vectors, query)
        order = np.argsort(-scores, kind="stable")[:top]
        found.append([(str(row), float(scores[row])) for row in order])
    return found


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("count", "top"), [(5000, 10), (5000, 1), (700, 10), (3 * BLOCK, 3), (130, 100), (40, 60)])
def test_equals_the_plain_scan(make: Callable[..., np.ndarray], count: int, top: int) -> None:
    rng = np.random.default_rng(count)
    vectors = make(count, 48, rng)
    queries = np.concatenate([spread(67, 48, rng), vectors[:3], 1e-3 * vectors[3:5], 50 * vectors[5:7]])
    entries = Entries(48)
    entries.upsert([str(i) for i in range(count)], vectors, [{}] * count)
    batch = entries.search(queries, top)
    assert [[(hit.id, hit.score) for hit in hits] for hits in batch] == expected(vectors, queries, top)
    assert entries.search(queries[:1], top) == batch[:1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 64), st.integers(1, 40), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_any_size_any_width(count: int, width: int, top: int, make: Callable[..., np.ndarray], seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = make(count, width, rng), rng.normal(size=(3, width)).astype(np.float32)
    for dtype in (torch.bfloat16, torch.float32):
        rough = Rough(width, dtype)
        rough.write(np.arange(count), vectors, count)
        top = min(top, count)
        for query, rows in zip(queries, rough.candidates(queries, count, top, None), strict=True):
            rows = np.arange(count) if rows is None else rows
            found, scores = best(plain(vectors[rows], query), rows, top)
            assert [(str(row), score) for row, score in zip(found.tolist(), scores.tolist(), strict=True)] == expected(
                vectors, query[None], top
            )[0]


def test_spread_vectors_leave_few_candidates() -> None:
    """Else the scan would be exact but not fast."""
    rng = np.random.default_rng(0)
    vectors = spread(20000, 128, rng)
    rough = Rough(128, torch.bfloat16)
    rough.write(np.arange(20000), vectors, 20000)
    candidates = rough.candidates(spread(64, 128, rng), 20000, 10, None)
    assert max(20000 if rows is None else len(rows) for rows in candidates) < 200


def test_changes_and_filters_stay_in_step() -> None:
    rng = np.random.default_rng(1)
    vectors, queries = spread(3000, 24, rng), spread(8, 24, rng)
    entries = Entries(24)
    entries.upsert([str(i) for i in range(2000)], vectors[:2000], [{"even": i % 2 == 0} for i in range(2000)])
    entries.search(queries, 5)
    entries.upsert([str(i) for i in range(2000, 2500)], vectors[2000:2500], [{"even": i % 2 == 0} for i in range(500)])
    vectors[:40] = vectors[2960:]
    entries.upsert([str(i) for i in range(40)], vectors[:40], [{"even": i % 2 == 0} for i in range(40)])
    assert entries.delete([str(i) for i in range(100, 300)]) == 200
    kept = np.array([i for i in range(2500) if not 100 <= i < 300])
    for where, rows in [(None, kept), ({"even": True}, kept[kept % 2 == 0]), ({"even": {"exists": False}}, kept[:0])]:
        for query, hits in zip(queries, entries.search(queries, 7, where), strict=True):
            wanted, scores = best(plain(vectors[rows], query), rows, 7)
            assert [(hit.id, hit.score) for hit in hits] == list(
                zip(map(str, wanted.tolist()), scores.tolist(), strict=True)
            )
        assert entries.count(where) == len(rows)
    one = {"or": [{"rare": True}, {"even": {"exists": False}}]}
    entries.upsert(["2499"], vectors[2499:2500], [{"rare": True}])
    assert [hit.id for hit in entries.search(queries[:1], 7, one)[0]] == ["2499"]
    assert entries.delete([str(i) for i in range(300, 2000)]) == 1700
    assert [hit.id for hit in entries.search(vectors[2400:2401], 1)[0]] == ["2400"]


def test_a_mask_over_nearly_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FEW", 0.0)
    rng = np.random.default_rng(3)
    vectors, queries = spread(1000, 16, rng), spread(3, 16, rng)
    entries = Entries(16)
    entries.upsert([str(i) for i in range(1000)], vectors, [{"n": i} for i in range(1000)])
    for rows in ([5], [5, 6, 7], list(range(0, 1000, 9)), [998, 999]):
        where = {"n": {"in": rows}}
        for query, hits in zip(queries, entries.search(queries, 10, where), strict=True):
            wanted, _ = best(plain(vectors[rows], query), np.array(rows), 10)
            assert [hit.id for hit in hits] == [str(row) for row in wanted]


def test_many_small_changes_of_one_id() -> None:
    entries = Entries(4)
    eye = np.eye(4, dtype=np.float32)
    entries.upsert(["a", "b", "a"], eye[[0, 1, 2]], [{"n": 1}, {"n": 2}, {"n": 3}])
    assert list(entries) == ["a", "b"]
    assert entries.metadata("a") == {"n": 3}
    np.testing.assert_array_equal(entries.vector("a"), eye[2])
    for _ in range(50):
        assert entries.delete(["a"]) == 1
        entries.upsert(["a"], eye[:1], [{}])
    assert len(entries) == 2
    assert [hit.id for hit in entries.search(eye[:1], 9)[0]] == ["a", "b"]


def test_memory_stays_as_rows_come_one_by_one() -> None:
    """A product of every new size would leave a kernel of its own behind: half a megabyte a search."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        pytest.skip("the system does not say how much memory is resident")
    rows = spread(5000, 32, np.random.default_rng(7))
    entries = Entries(32)
    entries.upsert([str(n) for n in range(4500)], rows[:4500], [{}] * 4500)
    for number in range(4500, 5000):
        entries.upsert([str(number)], rows[number : number + 1], [{}])
        if number == 4600:
            before = int(statm.read_text().split()[1])
        entries.search(rows[number : number + 1], 5)
    assert (int(statm.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") < 32 * 2**20
