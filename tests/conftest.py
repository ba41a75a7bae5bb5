"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large reference values, `$VLM_SHARED` or `../shared`; a test that needs it is skipped without."""
    folder = Path(os.environ.get("VLM_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared reference values at {folder} (set VLM_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of small reference values in the repository."""
    return Path(__file__).resolve().parent / "golden"
