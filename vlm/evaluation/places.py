"""How a run names a file: alike on every machine, and found again on this one.

flickr8k/images/1.jpg            below the data folder
cache:datasets/media/8d/39.png   below `vlm.weights.fetching.cache_dir`: what came in a package, a table or an archive
/elsewhere/1.jpg                 anything else, as it is
"""

from __future__ import annotations

from pathlib import Path

from vlm.weights.parts import cache_dir

CACHE = "cache:"


def name_of(path: Path, data: Path | None) -> str:
    """The name of a file; `data` is the data folder, if there is one."""
    if data is not None and path.is_relative_to(data):
        return path.relative_to(data).as_posix()
    if path.is_relative_to(cache_dir()):
        return CACHE + path.relative_to(cache_dir()).as_posix()
    return str(path)


def path_of(name: str, data: Path) -> Path:
    """Where the file of that name is on this machine."""
    return cache_dir() / name.removeprefix(CACHE) if name.startswith(CACHE) else data / name
