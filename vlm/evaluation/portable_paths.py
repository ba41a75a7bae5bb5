"""Portable file names: the same on every machine, and resolved to a path on this one.

flickr8k/images/1.jpg            below the data folder
cache:datasets/media/8d/39.png   below `vlm.weights.fetching.cache_dir`: what came in a package, a table or an archive
/elsewhere/1.jpg                 anything else, as it is
"""

from __future__ import annotations

from pathlib import Path

from vlm.weights.parts import cache_dir

CACHE = "cache:"


def portable_name(path: Path, data: Path | None) -> str:
    """The portable name of a file; `data` is the data folder, if there is one."""
    if data is not None and path.is_relative_to(data):
        return path.relative_to(data).as_posix()
    if path.is_relative_to(cache_dir()):
        return CACHE + path.relative_to(cache_dir()).as_posix()
    return str(path)


def resolve_name(name: str, data: Path) -> Path:
    """The path that a portable name has on this machine."""
    return cache_dir() / name.removeprefix(CACHE) if name.startswith(CACHE) else data / name
