"""OpenMP is told how to wait and how many threads to have before torch loads; what the user set stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlm import threads


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": threads.SPINS}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}),
    ],
)
def test_workers_spin_shortly_unless_told_otherwise(
    user: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    threads.prepare(user, tmp_path)
    assert user == expected


@pytest.mark.parametrize(
    ("limit", "count"),
    [("250000 100000", "2"), ("50000 100000", "1"), ("max 100000", None), ("6400000 100000", None), ("", None)],
)
def test_no_more_threads_than_the_container_may_use(
    limit: str, count: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    (tmp_path / "cpu.max").write_text(limit)
    environment: dict[str, str] = {}
    threads.prepare(environment, tmp_path)
    assert environment.get("OMP_NUM_THREADS") == count
    threads.prepare(chosen := {"OMP_NUM_THREADS": "7"}, tmp_path)
    assert chosen["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(("quota", "count"), [("150000", "1"), ("-1", None)])
def test_quota_of_the_older_control_groups(
    quota: str, count: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    environment: dict[str, str] = {}
    threads.prepare(environment, tmp_path)
    assert environment.get("OMP_NUM_THREADS") == count


@pytest.mark.process
def test_importing_vlm_comes_before_torch() -> None:
    code = "import sys, os, vlm; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "PASSIVE"
