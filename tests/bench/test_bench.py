"""What is compared is the same thing, in turns; what is published is a ratio."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from vlm.bench import alignment, metrics, timing
from vlm.bench.timing import Missing, Ratio


def test_turns_alternate_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls: list[str] = []
    peer_seconds = itertools.chain([100.0], [2.0, 4.0, 3.0])

    def run(name: str, seconds: float) -> None:
        nonlocal now
        calls.append(name)
        now += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    ratio = timing.alternate("what", "peer", lambda: run("ours", 1), lambda: run("peer", next(peer_seconds)), rounds=3)
    assert ratio == Ratio("what", "peer", 1.0, 3.0, 3.0, 2.0, 4.0)
    assert calls == ["peer", "ours", "ours", "peer", "peer", "ours", "ours", "peer"]


@pytest.mark.process
def test_memory_of_a_call_is_measured() -> None:
    peak = timing.in_new_process(_peak_of_a_hundred, 1)  # as benchmarks do: here other tests have left memory free
    assert peak is None or 95 < peak < 150


@pytest.mark.process
def test_small_benchmarks_agree_with_their_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comparison checks that both sides compute the same; a reference that is not installed is named."""
    monkeypatch.setattr(metrics, "IMAGES", 12)
    monkeypatch.setattr(metrics, "QUESTIONS", 50)
    results = [benchmark(1) for benchmark in metrics.BENCHMARKS]
    assert all(isinstance(r, Ratio) or (isinstance(r, Missing) and r.why) for r in results)
    assert isinstance(results[-1], Ratio)  # needs nothing installed


def test_alignment_losses_agree_with_their_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "BATCH", 16)
    monkeypatch.setattr(alignment, "WIDTH", 8)
    # Memory is measured in a fork, which waits for ever where torch's threads have run before, as they have here.
    monkeypatch.setattr(alignment, "peak_megabytes", lambda function: None)
    results = [benchmark(1) for benchmark in (alignment._clip, alignment._siglip)]
    assert all(isinstance(r, Ratio) or (isinstance(r, Missing) and r.why) for r in results)


def _peak_of_a_hundred(rounds: int) -> float | None:
    return timing.peak_megabytes(lambda: np.ones(100 * 2**20, dtype=np.uint8).sum())


def _own_process(rounds: int) -> Ratio:
    return Ratio(str(os.getpid()), "", 1, 1, rounds, 1, 1)


@pytest.mark.process
def test_each_benchmark_has_a_process_of_its_own() -> None:
    pids = {timing.in_new_process(_own_process, rounds).what for rounds in (1, 2)}
    assert len(pids | {str(os.getpid())}) == 3


@pytest.mark.process
def test_results_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "IMAGES", 12)
    monkeypatch.setattr(metrics, "_recalls", lambda *_: [0.0] * 6)
    with pytest.raises(AssertionError, match="differ"):
        list(metrics._recall_argsort(1))
