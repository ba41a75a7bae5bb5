"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Both come before torch is imported. Workers of pytest-xdist share the cores: with two threads each on two cores, tests
# of small models took three times as long, because threads waited for each other.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))
import vlm  # noqa: E402, F401  (sets how threads wait)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from vlm.conversation.tokenizer import TextTokenizer
    from vlm.models.assembled import Assembled

REPOSITORY = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROGRAMS = Path(sys.executable).parent
DECODERS = ("vlm.media.video.worker", "vlm.media.process.pictures_worker")
"""Processes that any test may start: they are small, start within half a second and are kept."""


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage needs to look at it again, which took half a second each."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is not marked `process` fails where it, or a fixture that it is the first to need, starts Python. One
    that is marked `weights` may be the first that fetches them, by pip."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("process") is None and item.get_closest_marker("weights") is None:
            start = subprocess.Popen.__init__

            def checked(self: Any, args: Any, *rest: Any, **options: Any) -> None:
                words = [str(word) for word in ([args] if isinstance(args, str | os.PathLike) else args)]
                if Path(words[0]).parent == PROGRAMS and not any(name in word for word in words for name in DECODERS):
                    pytest.fail(f"{item.nodeid} starts {words[0]}: mark it `process`")
                start(self, args, *rest, **options)

            def refused(self: BaseProcess) -> None:
                pytest.fail(f"{item.nodeid} starts a process of multiprocessing: mark it `process`")

            patch.setattr(subprocess.Popen, "__init__", checked)
            patch.setattr(BaseProcess, "start", refused)
        return (yield)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large reference values, `$VLM_SHARED` or `../shared`; a test that needs it is skipped without."""
    folder = Path(os.environ.get("VLM_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared reference values at {folder} (set VLM_SHARED)")
    return folder


@pytest.fixture(scope="session")
def cases(shared: Path) -> Path:
    """The folder of inputs that people reported; a test that needs it is skipped without."""
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip(f"no reported inputs at {folder} (set VLM_SHARED)")
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
