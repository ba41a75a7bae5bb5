"""The engines of `vlm bench retrieval` find the same vectors; one that cannot be measured is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vlm.bench import retrieval
from vlm.bench.retrieval_engines import PEERS, TOP, Peer, ours
from vlm.bench.timing import Missing, Ratio


@pytest.mark.parametrize("name", ["ours", *PEERS])
def test_an_engine_finds_the_nearest(name: str, tmp_path: Path) -> None:
    peer = Peer("vlm", ours) if name == "ours" else PEERS[name]
    if importlib.util.find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    vectors, asked = retrieval.data(600, 32)
    wanted = retrieval.exact(vectors, asked)
    built = retrieval._built(peer.engine, vectors, asked, wanted, tmp_path)
    assert [len(ids) for ids in built.search(asked)] == [TOP] * retrieval.ASKED
    # A graph does not find all; product quantisation as it comes does not look at the vectors again.
    assert built.recall >= {"faiss, HNSW of 32": 0.8, "LanceDB, its index": 0.1}.get(name, 0.99)


def test_what_cannot_be_measured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {"nobody": Peer("no_such_package", ours), "small": Peer("vlm", ours, most=10), "itself": Peer("vlm", ours)}
    monkeypatch.setattr(retrieval, "PEERS", peers)
    results = retrieval._compare(100, 16, 1)
    missing = [(result.peer, result.why) for result in results if isinstance(result, Missing)]
    assert missing == [("nobody", "no_such_package is not installed"), ("small", "not made for more than 10")]
    assert [result.what for result in results if isinstance(result, Ratio)] == [
        "1 of 100 vectors of 16",
        "64 of 100 vectors of 16",
    ]
