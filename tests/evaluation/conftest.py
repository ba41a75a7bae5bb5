"""What several tests of the harness begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import questions, vqa, write_run

from vlm.metrics.java import NotAvailable


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with one task: thirty questions about six pictures, some of them hostile."""
    samples = questions(tmp_path / "data", 30, 6)
    return write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)])


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints are asked again without waiting, without a key, and no caption is scored by Java."""
    monkeypatch.setattr("vlm.evaluation.endpoint.client.BACKOFF", 0.001)
    monkeypatch.delenv("VLM_SERVER_KEY", raising=False)
    for name in ("meteor", "spice"):
        monkeypatch.setattr(f"vlm.evaluation.task_types.caption.{name}", lambda *_: NotAvailable("not in this test"))
