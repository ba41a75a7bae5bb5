"""What a folder holds: its pictures and clips, and what else is there, so that nothing is passed over in silence."""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from vlm.errors import BadInput
from vlm.files import name_text
from vlm.media.kinds import kind_of_file, kind_of_name
from vlm.notes import Notes

# Files that lie beside pictures and are none: not opened to find that out.
_OTHERS = frozenset(
    ".txt .md .json .jsonl .csv .tsv .yaml .yml .xml .toml .ini .log .py .sh .js .css .html .parquet .npy .npz .pt "
    ".pth .safetensors .tar .zip .gz .pdf .aae .thm .db".split()
)


@dataclass
class Found:
    """Pictures and clips in the order of their paths, among them those that can only be said to be unreadable, and
    notes on the rest."""

    paths: list[Path] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


def find_media(folder: str | Path) -> Found:
    """Everything under `folder`; links to folders are followed, each folder once.

    A file is taken for a picture or clip where its content or its suffix says so, and so is what cannot be opened but
    has such a suffix. The rest is noted: other files by their suffix, hidden ones, folders that may not be entered,
    and links that lead to a folder seen already. Raises `BadInput` where the folder is none.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        got = "a file" if os.path.exists(root) else "nothing there"
        raise BadInput(f"{name_text(root)}: expected a folder of images and videos, got {got}")
    found, others, hidden = Found(), Counter[str](), 0
    seen: set[tuple[int, int]] = set()
    folders, links = deque([root]), deque[Path]()
    while folders or links:
        # Links wait, so that a folder is found under its own name before it is under a link's.
        here = (folders or links).popleft()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                found.notes.add(name_text(here), "a link to a folder that is read under another name, left out")
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            found.notes.add(name_text(here), f"a folder that cannot be entered, left out ({error.strerror})")
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                hidden += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif is_media(path):
                found.paths.append(path)
            else:
                others[path.suffix.lower() if len(path.suffix) < 12 else ""] += 1
    for suffix, count in sorted(others.items()):
        found.notes.add(name_text(root), f"no pictures or clips, left out: files {_called(suffix)}", count)
    if hidden:
        found.notes.add(name_text(root), "hidden files and folders, left out", hidden)
    found.paths.sort()
    return found


def list_media(folder: str | Path) -> list[Path]:
    """Every picture and video under `folder`, sorted. Raises `BadInput` where there is none, or no folder."""
    return some_media(folder).paths


def some_media(folder: str | Path) -> Found:
    """`find_media`, which has to find something. Raises `BadInput`."""
    found = find_media(folder)
    if not found.paths:
        raise BadInput(f"{name_text(folder)}: expected a folder of images and videos, got none of either")
    return found


def is_media(path: Path) -> bool:
    """Whether the file is one by its content, or by its suffix where the content tells nothing."""
    if path.suffix.lower() in _OTHERS:
        return False
    named = kind_of_name(path)
    if named is not None and named.medium is not None:
        return True
    kind = kind_of_file(path)
    return kind is not None and kind.medium is not None


def _called(suffix: str) -> str:
    return f"of {name_text(suffix)}" if suffix else "without a suffix"
