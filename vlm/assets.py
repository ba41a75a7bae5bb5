"""Where the three card folders are: `configs/`, `data/` and `eval/`, in a clone or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from vlm.errors import BadInput, unknown

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds `configs/`, `data/` and `eval/`."""
    for candidate in (_PACKAGE / "_assets", _PACKAGE.parent):
        if (candidate / "configs" / "models").is_dir():
            return candidate
    raise BadInput(f"{_PACKAGE}: this installation has no configs/, data/ and eval/ folders")


def cards(folder: str) -> dict[str, Path]:
    """Name -> YAML file of every card in `folder` (such as `configs/models`, `data`, `eval`)."""
    return {path.stem: path for path in sorted((root() / folder).glob("*.yaml"))}


def find_card(folder: str, name_or_path: str, kind: str) -> Path:
    """A card by name, or by the path of a YAML file of the user's own.

    Raises `BadInput` with the nearest name where there is none.
    """
    known = cards(folder)
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise unknown(kind, name_or_path, known)
