"""Towers from the folders that their libraries write: safetensors and JSON, nothing that can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm.config import parse
from vlm.errors import BadInput
from vlm.files import read_json
from vlm.vision.library import LIBRARIES
from vlm.vision.tower import TowerConfig, VisionTower
from vlm.vision.towers.weights import read_weights
from vlm.weights import hub

STATED = ("patch", "width", "activation", "mean", "std", "interpolation")
"""What a card says of a checkpoint must be what the checkpoint says."""


def load(
    name_or_folder: str | Path, *, library: str | None = None, offline: bool = False, **stated: Any
) -> VisionTower:
    """The tower in a folder, or in a repository of the hub, in evaluation mode.

    Architecture, activation and preprocessing come from the checkpoint. `stated` are keys of `TowerConfig`: `layer`,
    `budget`, `image_size` and `framing` change what is built; any other must be what the checkpoint says. `library`
    chooses where a folder holds the files of two.

    Raises `BadInput` for a folder that is no library's, a mismatch, a missing or unexpected tensor, and
    weights that are not safetensors; `VlmError` where the hub does not answer.
    """
    folder = _find(str(name_or_folder), offline)
    published = read_config(folder, library)
    scaled = {}
    if "image_size" in stated and published.framing.side:  # what is cropped stays the same share of the picture
        side = published.framing.side * stated["image_size"] // published.image_size
        scaled = {"framing": published.framing.model_copy(update={"side": side})}
    cfg = parse(TowerConfig, {**published.model_dump(), **scaled, **stated}, str(folder))
    return _loaded(cfg, folder, published)


def load_into(cfg: TowerConfig, folder: Path) -> VisionTower:
    """The tower of `cfg` with the weights in `folder`; what the folder says of them must be what `cfg` states."""
    return _loaded(cfg, folder, read_config(folder, cfg.library) if layout(folder) else None)


def _loaded(cfg: TowerConfig, folder: Path, published: TowerConfig | None) -> VisionTower:
    for key in STATED if published is not None else ():
        stated, found = getattr(cfg, key), getattr(published, key)
        if stated != found:
            raise BadInput(f"{folder}: key {key}: expected {stated}, the checkpoint's is {found}")
    tower = cfg.build()
    stem = LIBRARIES[cfg.library].stem
    tower.load_published(read_weights(folder, stem if list(folder.glob(f"{stem}*.safetensors")) else "model"))
    return tower.eval()


def read_config(folder: Path, library: str | None = None) -> TowerConfig:
    """What a checkpoint's own files say of it."""
    found = layout(folder)
    if library is None and len(found) != 1:
        got = f"those of {' and '.join(found)}: say library=" if found else "none"
        *others, last = sorted(LIBRARIES)
        raise BadInput(f"{folder}: expected the files of {', '.join(others)} or {last}, got {got}")
    if library is not None and library not in found:
        raise BadInput(f"{folder}: expected the files of {library}, got those of {' and '.join(found) or 'none'}")
    return LIBRARIES[library or found[0]].read(folder)


def layout(folder: Path) -> list[str]:
    """The libraries whose files are in `folder`."""
    content = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return [name for name, library in LIBRARIES.items() if library.recognises(folder, content)]


def _find(name: str, offline: bool) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not hub.is_repository(name):
        raise BadInput(f"{name}: expected a folder, or a repository of the hub (owner/name)")
    return hub.snapshot(name, offline=offline)
