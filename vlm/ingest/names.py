"""Names that a list, a table or an annotation file gives, and the files they mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vlm.errors import BadInput
from vlm.files import name_path
from vlm.media.urls import is_url


def place_of(name: str, home: Path) -> str:
    """The URL, or the path of the file that `name` means; relative names start `home`.

    It is taken as it is where there is such a file. Where there is none: without spaces around it, with Windows'
    backslashes as slashes, with `~/` as the user's folder, and as `vlm.files.name_text` writes names that are no text.
    """
    if is_url(name.strip()):
        return name.strip()
    for reading in _readings(name):
        path = str(home / reading)
        if os.path.lexists(path):
            return path
    return str(home / name.strip())


def _readings(name: str) -> Iterator[str]:
    yield name
    short = name.strip()
    yield short
    if "\\" in short:
        yield short.replace("\\", "/")
        yield name_path(short)
    if short.startswith("~/"):
        yield os.path.expanduser(short)


def lines_of(path: Path) -> list[str]:
    """The lines of a list of names. They end at line feeds alone, and may hold bytes that are no text.

    UTF-16 is read where the file begins with its mark. Raises `BadInput` where the file cannot be read.
    """
    try:
        content = path.read_bytes()
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            content = content.decode("utf-16").encode()
    except OSError as error:
        raise BadInput(f"{path}: expected a list of paths, got a file that cannot be read ({error.strerror})") from None
    except UnicodeError as error:
        raise BadInput(f"{path}: expected a list of paths in UTF-8 or UTF-16, got: {error}") from None
    if b"\0" in content[:1000]:
        raise BadInput(f"{path}: expected a list of paths in UTF-8 or UTF-16, got a file with zero bytes")
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [os.fsdecode(line.removesuffix(b"\r")) for line in lines]
