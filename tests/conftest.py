"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from vlm.conversation.tokenizer import TextTokenizer
    from vlm.models.assembled import Assembled

REPOSITORY = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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


@pytest.fixture(scope="session")
def nano() -> Assembled:
    """The untrained `nano`: published parts, upcycled. A test that changes it must put it back."""
    from vlm.models.assemble import assemble
    from vlm.models.card import load_card

    return assemble(load_card("nano"), trained=False)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """A small byte-level tokenizer with the template's control tokens."""
    import tiny

    from vlm.conversation.tokenizer import TextTokenizer

    return TextTokenizer(tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, found on PATH or named by `$VLM_CHROMIUM`; a test that needs it is skipped without."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip: vlm[dev])")
    path = os.environ.get("VLM_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} on PATH, and VLM_CHROMIUM is not set")
    # Chromium's own sandbox does not start for root, as whom containers run.
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()
