"""What every engine does, the same for all: flat, LanceDB in memory, from its table and on object storage, Qdrant."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.index.base import Index
from vlm.index.exact import plain
from vlm.index.filters import matches

if TYPE_CHECKING:
    from conftest import Engine

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


def unit(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row(i: int) -> dict[str, Any]:
    found = {"n": i, "tag": "abc"[i % 3], "odd": i % 2 == 1, "place": {"name": f"town {i % 5}"}, "none": None}
    if i % 4 == 0:  # what else may stand where those do
        found |= {"tag": ["abc"[i % 3], "z"], "n": [i, 1000 + i], "boxes": [{"of": "cat"}, {"of": "dog", "x": i}]}
    if i % 4 == 1:
        del found["place"]
        found |= {"place.name": f"town {i % 5}", "boxes": {"of": "dog"}}
    return found


def filled(engine: Engine, count: int = 120) -> Index:
    index = engine.make()
    index.upsert([f"id/{i} 'é\"" for i in range(count)], unit(count), [row(i) for i in range(count)])
    index.commit()
    return index


def number(id: str) -> int:
    return int(id.split("/")[1].split()[0])


def test_search_is_the_exact_order_with_the_exact_scores(engine: Engine) -> None:
    index, queries = filled(engine), unit(9, seed=1)
    for query, hits in zip(queries, index.search(queries, 7), strict=True):
        scores = plain(unit(120), query)
        wanted = np.argsort(-scores, kind="stable")[:7]
        assert [number(hit.id) for hit in hits] == wanted.tolist()
        assert [hit.score for hit in hits] == scores[wanted].tolist()
        assert [hit.metadata for hit in hits] == [row(i) for i in wanted.tolist()]
        assert index.search(query[None], 7) == [hits]
    least = index.search(queries[:1], 120)[0][30].score
    assert len(index.search(queries[:1], 120, min_score=least)[0]) == 31
    assert len(index.search(queries[:1], 500)[0]) == 120
    assert index.search(queries[:0], 3) == []


def test_everything_is_read_at_once(engine: Engine) -> None:
    index = filled(engine)
    assert {number(id): metadata for id, metadata in index.items()} == {i: row(i) for i in range(120)}
    some = [id for id in index if number(id) % 7 == 0]
    assert index.known([*some, "nobody"]) == {id: row(number(id)) for id in some}
    assert index.known([]) == {}
    ids, vectors = index.vectors()
    assert sorted(ids) == sorted(index)
    np.testing.assert_array_equal(vectors, unit(120)[[number(id) for id in ids]])


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"n": 7},
        {"n": 7.0},
        {"tag": "a", "odd": True},
        {"odd": 1},
        {"tag": {"in": ["a", "c"]}, "n": {"gte": 10, "lt": 60}},
        {"n": {"gt": 100.5}},
        {"place.name": "town 3"},
        {"place.name": {"gt": "town 2"}},
        {"none": None},
        {"nobody": None},
        {"nobody.inside": {"exists": False}},
        {"tag": {"ne": "a"}},
        {"tag": {"in": []}},
        {"not": {"or": [{"tag": "a"}, {"n": {"lt": 100}}]}},
        {"or": [{"n": 3}, {"place.name": "town 4", "odd": False}]},
        {"tag": "it's \" \\ %_ é"},
        {"a b'c": 1},
        {"tag": "z"},
        {"tag": {"in": ["z", "b"]}},
        {"tag": {"ne": "z"}},
        {"n": {"gt": 50, "lt": 60}},
        {"n": 1008},
        {"n": {"gte": 1100}},
        {"place.name": "town 1"},
        {"boxes.of": "dog"},
        {"boxes.x": {"lt": 30}},
        {"boxes.of": {"exists": True}},
        {"boxes": {"exists": False}},
    ],
)
def test_filters_mean_what_they_say(engine: Engine, where: dict[str, Any]) -> None:
    index, query = filled(engine), unit(1, seed=1)
    fit = [i for i in range(120) if matches(where, row(i))]
    assert index.count(where) == len(fit)
    assert sorted(number(hit.id) for hit in index.search(query, 120, where=where)[0]) == fit
    scores = plain(unit(120)[fit], query[0]) if fit else np.zeros(0)
    wanted = [fit[i] for i in np.argsort(-scores, kind="stable")[:4]]
    assert [number(hit.id) for hit in index.search(query, 4, where=where)[0]] == wanted


def test_upsert_replaces_and_delete_removes(engine: Engine) -> None:
    index = filled(engine, 5)
    ids = list(index)
    index.upsert([ids[1], "new", "new"], unit(3, seed=3), [{"n": 11}, {"n": 12}, {"n": 13}])
    assert (len(index), index.metadata(ids[1]), index.metadata("new")) == (6, {"n": 11}, {"n": 13})
    np.testing.assert_array_equal(index.vector(ids[1]), unit(3, seed=3)[0])
    np.testing.assert_array_equal(index.vector("new"), unit(3, seed=3)[2])
    assert index.delete([ids[0], ids[4], "nobody", ids[0]]) == 2
    assert sorted(index) == sorted([*ids[1:4], "new"])
    assert ids[0] not in index
    assert "new" in index
    assert ids[0] not in [hit.id for hit in index.search(unit(1), 10)[0]]
    assert index.search(unit(3, seed=3)[:1], 1)[0][0].id == ids[1]
    with pytest.raises(KeyError):
        index.metadata(ids[0])
    with pytest.raises(KeyError):
        index.vector("nobody")
    assert index.delete([]) == 0
    index.upsert([], unit(0), [])


def test_metadata_come_back_as_they_went(engine: Engine) -> None:
    tricky = {
        "numbers": [0, -1, 2**63 - 1, -(2**63), 0.1, 1e300, 5e-324, 1.0],
        "texts": ["", 'a"b\\c\n\t\x01', "é😀", "'; DROP TABLE entries; --"],
        "deep": {"a.b": {"": [None, True, {}, []]}},
    }
    index = engine.make()
    index.upsert(["é'\"\\;--", ""], unit(2), [tricky, {}])
    index.commit()
    again = engine.again() if engine.name != "flat" else index
    assert again.metadata("é'\"\\;--") == tricky
    assert again.metadata("") == {}
    assert [type(value) for value in again.metadata("é'\"\\;--")["numbers"]] == [int] * 4 + [float] * 4


def test_what_was_committed_is_what_is_opened(engine: Engine) -> None:
    index = filled(engine)
    index.delete([id for id in index if number(id) < 20])
    index.commit()
    hits = index.search(unit(3, seed=2), 5, where={"odd": False})
    index.close()
    again = engine.again(model="m", width=8)
    assert (len(again), again.model, again.width) == (100, "m", 8)
    assert again.search(unit(3, seed=2), 5, where={"odd": False}) == hits


def test_a_snapshot_is_kept_until_compaction(engine: Engine) -> None:
    index = filled(engine, 30)
    name = index.snapshot()
    index.delete([id for id in index if number(id) < 10])
    index.upsert(["new"], unit(1))
    index.commit()
    before = engine.again(snapshot=name)
    assert len(before) == 30
    assert sorted(number(hit.id) for hit in before.search(unit(1), 99)[0]) == list(range(30))
    with pytest.raises(BadInput, match="cannot be changed"):
        before.upsert(["x"], unit(1))
    with pytest.raises(BadInput, match="cannot be changed"):
        before.delete(["x"])
    index.compact()
    assert len(index) == 21
    with pytest.raises(BadInput):
        engine.again(snapshot=name)
    index.close()
    assert len(engine.again()) == 21


def test_wrong_entries_change_nothing(engine: Engine) -> None:
    index = filled(engine, 5)
    for ids, vectors, metadata, message in [
        (["a", "b"], unit(2, 7), None, "expected 2 vectors of width 8"),
        (["a", "b"], unit(3), None, "expected 2 vectors of width 8"),
        (["a", "b"], unit(2), [{}], "and 1 metadata"),
        (["a", "b"], unit(2) * 2, None, "length 1, got 2 for 'a'"),
        (["a"], np.full((1, 8), np.nan), None, "length 1, got nan"),
        (["a"], unit(1), [{"x": float("nan")}], "metadata of JSON for 'a'"),
        (["a"], unit(1), [{"x": object()}], "metadata of JSON for 'a'"),
        (["a"], unit(1), [{"x": 2**64}], "integers of 64 bits"),
        (["a"], unit(1), [{"x": "\ud800"}], "Unicode"),
        (["a"], unit(1), ["x"], "to be an object"),
        (["\ud800"], unit(1), None, "Unicode text"),
    ]:
        with pytest.raises(BadInput, match=message) as error:
            index.upsert(ids, vectors, metadata)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    assert len(index) == 5


def test_wrong_queries_are_refused(engine: Engine) -> None:
    index = filled(engine, 5)
    for vectors, top, where, message in [
        (unit(1, 7), 5, None, r"queries \[Q, 8\], got \[1, 7\]"),
        (unit(1)[0], 5, None, r"queries \[Q, 8\], got \[8\]"),
        (np.full((1, 8), np.inf), 5, None, "finite"),
        (unit(1), 0, None, "at least 1"),
        (unit(1), 5, {"n": {"like": 1}}, "filter.n.like"),
    ]:
        with pytest.raises(BadInput, match=message):
            index.search(vectors, top, where=where)


def test_another_model_or_width_is_refused(engine: Engine) -> None:
    filled(engine, 2).close()
    with pytest.raises(BadInput, match="index of model other, got one of m"):
        engine.again(model="other")
    with pytest.raises(BadInput, match="vectors of width 9, got 8"):
        engine.again(width=9)
    with pytest.raises(BadInput):
        engine.make()
    with pytest.raises(BadInput):
        engine.again(snapshot="../../x")


def test_an_empty_index(engine: Engine) -> None:
    index = engine.make()
    index.commit()
    assert (len(index), list(index), "x" in index, index.count({"a": 1})) == (0, [], False, 0)
    assert index.search(unit(2), 5) == [[], []]


def test_threads_search_while_one_writes(engine: Engine) -> None:
    """Every answer is that of some moment: the entry that is always there is first, no id comes twice."""
    if engine.name == "qdrant":
        pytest.skip("the client's local mode is for one thread; a server is not")
    index, failed, done = filled(engine, 60), [], threading.Event()
    constant = next(id for id in index if number(id) == 30)

    def reads() -> None:
        while not done.is_set():
            try:
                hits = index.search(unit(120)[30:31], 40)[0]
                assert hits[0].id == constant
                assert len({hit.id for hit in hits}) == len(hits) == 40
                assert all(hit.metadata == row(number(hit.id)) for hit in hits if hit.id.startswith("id"))
            except Exception as error:
                failed.append(error)
                return

    readers = [threading.Thread(target=reads) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(6):
        index.upsert([f"x/{turn}", f"y/{turn}"], unit(2, seed=50 + turn), [{"n": turn}] * 2)
        index.delete([f"x/{turn - 1}"])
        index.commit()
    done.set()
    for reader in readers:
        reader.join()
    assert not failed, failed[0]
    assert len(index) == 67


def test_a_dropped_index_is_gone_with_its_snapshots(engine: Engine) -> None:
    assert not engine.there()
    with pytest.raises(BadInput, match="got none"):
        engine.drop()
    index = filled(engine, 5)
    snapshot = index.snapshot()
    index.close()
    assert engine.there()
    engine.drop()
    assert not engine.there()
    for how in ({}, {"snapshot": snapshot}):
        with pytest.raises(BadInput):
            engine.again(**how)
    assert len(filled(engine, 3)) == 3
