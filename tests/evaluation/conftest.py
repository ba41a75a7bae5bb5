"""What several tests of the harness begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import questions, vqa, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with one task: thirty questions about six pictures, some of them hostile."""
    samples = questions(tmp_path / "data", 30, 6)
    return write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)])
