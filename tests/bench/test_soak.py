"""A few seconds of the soak: it ends with nothing lost and nothing wrong, and it notices what is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed (pip: vlm[serve])")

from vlm.bench.soak import Log, Worker, soak


@pytest.mark.process
def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    done = soak(tmp_path / "root", 6, workers=3, engine="flat")
    assert done.lost == []
    assert done.wrong == []
    assert {"write", "search"} <= set(done.requests)
    assert 0 < done.p50_ms <= done.p99_ms
    assert done.kills == 1


def test_a_wrong_answer_is_noticed() -> None:
    rows = np.eye(8, 64, dtype=np.float32)

    def wrong(hits: list[tuple[str, float]]) -> bool:
        worker = Worker("w", Log(), lambda: None)  # type: ignore[arg-type, return-value]
        worker.mirror = {f"{n}": row for n, row in enumerate(rows)}
        worker._compare(rows[0], hits)
        return bool(worker.log.wrong)

    right = [("0", 1.0), ("3", 0.0), ("1", 0.0), ("2", 0.0), ("4", 0.0)]
    assert not wrong(right)
    assert wrong(right[:4])
    assert wrong([("1", 1.0), *right[1:]])
    assert wrong([("x", 1.0), *right[1:]])
    assert wrong([*right[1:], ("5", 0.0)])
    assert wrong([right[0], *right[:4]])
