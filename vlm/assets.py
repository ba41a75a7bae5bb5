"""Where the three card folders are: `configs/`, `data/` and `eval/`, in a clone or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from vlm.errors import BadInput, unknown

LISTING = {"configs/models": "`vlm models` names all", "eval": "`vlm eval --list` names all"}
"""Where a user sees all the cards of a folder."""

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

    Raises `BadInput` with the nearest names where there is none.
    """
    known = cards(folder)
    if name_or_path in known:
        return known[name_or_path]
    if is_path(name_or_path):
        if Path(name_or_path).is_file():
            return Path(name_or_path)
        raise BadInput(f"{name_or_path}: no such file; expected a {kind} card")
    raise unknown(kind, name_or_path, known, LISTING.get(folder, f"{root() / folder} holds all"))


def is_path(name_or_path: str) -> bool:
    """Whether a card is named by the path of a file."""
    return Path(name_or_path).suffix in (".yaml", ".yml")
