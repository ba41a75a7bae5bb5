"""Where cards are: in `configs/`, `data/` and `eval/` of a clone or an installed wheel, and in a user's own folders."""

from __future__ import annotations

import os
from pathlib import Path

from vlm.errors import BadInput, unknown

LISTING = {"configs/models": "`vlm models` names all", "eval": "`vlm eval --list` names all"}
"""Where a user sees all the cards of a folder."""
VARIABLE = "VLM_CARDS"
"""The environment's folders of cards, parted as in `PATH`: processes that this one starts read it too."""
SORTS = ("models", "data", "eval", "train")
"""The folders in a user's folder: models, data sets, benchmarks and recipes."""

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds `configs/`, `data/` and `eval/`."""
    for candidate in (_PACKAGE / "_assets", _PACKAGE.parent):
        if (candidate / "configs" / "models").is_dir():
            return candidate
    raise BadInput(f"{_PACKAGE}: this installation has no configs/, data/ and eval/ folders")


def use(folder: str | Path) -> None:
    """Read cards from this folder too, here and in the processes that this one starts.

    Raises `BadInput` for a folder with none of `SORTS` in it.
    """
    own = _checked(Path(folder))
    if own not in (known := own_folders()):
        os.environ[VARIABLE] = os.pathsep.join(map(str, [*known, own]))


def own_folders() -> list[Path]:
    """The user's folders of cards, each once. Raises `BadInput` for one that is none."""
    named = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    return list(dict.fromkeys(_checked(Path(folder)) for folder in named))


def cards(folder: str) -> dict[str, Path]:
    """Name -> YAML file of every card of `folder` (such as `configs/models`, `data`, `eval`), ours first.

    Raises `BadInput` for a name that is there twice.
    """
    found: dict[str, Path] = {}
    for place in _places(folder):
        for path in sorted(path for path in place.glob("*") if is_path(path)):
            if path.stem in found:
                raise BadInput(
                    f"two cards are called {path.stem!r}: {found[path.stem]} and {path}; expected a name for each"
                )
            found[path.stem] = path
    return found


def origin(card: Path) -> str:
    """Where a card is from, as lists show it: `vlm` for ours, else its file."""
    return str(card) if any(card.is_relative_to(own) for own in own_folders()) else "vlm"


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
    holds = f"{' and '.join(map(str, _places(folder)))} hold{'' if own_folders() else 's'} all"
    raise unknown(kind, name_or_path, known, LISTING.get(folder, holds))


def is_path(name_or_path: str | Path) -> bool:
    """Whether a card is named by the path of a file."""
    return Path(name_or_path).suffix in (".yaml", ".yml")


def _places(folder: str) -> list[Path]:
    return [root() / folder, *(own / Path(folder).name for own in own_folders())]


def _checked(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    if not any((folder / sort).is_dir() for sort in SORTS):
        got = "one with none of them" if folder.is_dir() else "no such folder"
        raise BadInput(f"{folder}: expected a folder of cards with models, data, eval or train in it, got {got}")
    return folder
