"""Files: names that are no text, JSON with errors of one line, and writes that a crash cannot leave half done (a
temporary neighbour, then one rename)."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm.errors import BadInput

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What a file begins with that git-lfs left in the place of a large one."""

# A byte that is no UTF-8 (as Python has it, a lone surrogate), a control character, and what looks like an escape.
_NO_TEXT = re.compile(r"[\udc80-\udcff\x00-\x1f\x7f]|\\(?=x[0-9a-f]{2})")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def name_text(name: str | Path) -> str:
    """A file's name as a text that can be stored, printed and sent: what is no text in it stands as `\\xe9`.

    Names are bytes, and `name_path` gives these back; a name that is all text stays as it is.
    """
    return _NO_TEXT.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", str(name))


def name_path(text: str) -> str:
    """The name that `name_text` wrote."""
    return _ESCAPE.sub(lambda match: os.fsdecode(bytes([int(match[1], 16)])), text)


def path_meant(text: str) -> str:
    """The path that a user means: as it is, or where nothing is there one that `name_text` wrote."""
    return text if os.path.lexists(text) or not os.path.lexists(name_path(text)) else name_path(text)


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is what git-lfs leaves in the place of a large one that was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write `content` so that `path` holds either its old content or all of the new."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `BadInput` where it is missing, malformed or no object."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        if is_lfs_pointer(path):
            raise BadInput(f"{path}: expected JSON, got a git-lfs pointer (run `git lfs pull`)") from None
        raise BadInput(f"{path}: not a JSON file: {error}") from None
    if not isinstance(fields, dict):
        raise BadInput(f"{path}: expected a JSON object, got {type(fields).__name__}")
    return fields


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
