from __future__ import annotations

from pathlib import Path

import pytest
from folders_of_vectors import COUNT, png


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven pictures, and one file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:02d}.png").write_bytes(png(number))
    (folder / "05b.png").write_bytes(b"broken")
    return folder
