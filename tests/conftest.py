"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vlm.checkpoints.assemble import Assembled
    from vlm.text.tokenizer import TextTokenizer

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


@pytest.fixture(scope="session")
def nano() -> Assembled:
    """The untrained `nano`: published parts, upcycled. A test that changes it must put it back."""
    from vlm.checkpoints.assemble import assemble
    from vlm.checkpoints.card import load_card

    return assemble(load_card("nano"), trained=False)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """A small byte-level tokenizer with the template's control tokens."""
    import tiny

    from vlm.text.tokenizer import TextTokenizer

    return TextTokenizer(tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"))
