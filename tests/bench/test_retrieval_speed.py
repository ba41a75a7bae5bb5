"""The engines of `vlm bench retrieval` find the same vectors; one that is not installed is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vlm.bench import retrieval
from vlm.bench.timing import Missing


@pytest.mark.parametrize("peer", ["ours", *retrieval.PEERS])
def test_an_engine_finds_the_nearest(peer: str, tmp_path: Path) -> None:
    package, engine = ("vlm", retrieval.ours) if peer == "ours" else retrieval.PEERS[peer]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    vectors, asked = retrieval.data(600, 32)
    search, costs = retrieval._built(engine, vectors, tmp_path)
    found, wanted = search(asked), retrieval.exact(vectors, asked)
    assert [len(ids) for ids in found] == [retrieval.TOP] * retrieval.ASKED
    # Product quantisation as it comes does not look at the vectors again.
    assert retrieval._recall(found, wanted) >= (0.1 if peer == "LanceDB, its index" else 0.99)
    assert costs.startswith("built in ")


def test_a_peer_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "PEERS", {"nobody": ("no_such_package", retrieval.ours)})
    results = list(retrieval.run(1, limit=1024))
    assert [result.why for result in results if isinstance(result, Missing)] == ["no_such_package is not installed"] * 2
