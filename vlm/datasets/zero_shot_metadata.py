"""Lists of class names and prompt templates that cards name instead of copying."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from vlm.errors import BadInput, unknown

OPEN_CLIP = {
    "imagenet-classes": "IMAGENET_CLASSNAMES",
    "imagenet-prompts": "OPENAI_IMAGENET_TEMPLATES",
    "imagenet-prompts-simple": "SIMPLE_IMAGENET_TEMPLATES",
}
"""Our name -> the list of `open_clip.zero_shot_metadata`."""


def named_list(name: str, folder: Path | None = None) -> tuple[str, ...]:
    """The list that a card names: one of `OPEN_CLIP`, or the lines of a `.txt` file beside the card (in `folder`).

    A template's place for the class is `{label}`. Raises `BadInput` where there is no such list.
    """
    if name in OPEN_CLIP:
        entries = getattr(_open_clip(), OPEN_CLIP[name])
        return tuple(entry if isinstance(entry, str) else entry("{label}") for entry in entries)
    if folder is None or not name.endswith(".txt"):
        raise unknown("list of names", name, OPEN_CLIP)
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder / name}: not a file of names: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())


@cache
def _open_clip() -> ModuleType:
    """Its file of lists alone: importing the package takes seconds, and every look at the cards would pay them."""
    package = importlib.util.find_spec("open_clip")
    folder = Path(next(iter(package.submodule_search_locations or ()))) if package else Path()
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", folder / "zero_shot_metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
