"""The libraries whose ViTs can be towers: how each one's folders are known, and the module that reads and builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vlm.registry import Registry


@dataclass(frozen=True)
class Library:
    module: str
    """Imported when it is needed: `Tower`, a class of `VisionTower`, and `read(folder)`, what its files say of it."""
    recognises: Callable[[Path, dict[str, Any]], bool]
    """Whether a folder with this `config.json` ({} where there is none) has the library's files."""
    stem: str = "model"
    """Of the weights' file: `<stem>.safetensors`, or its shards."""

    def build(self, cfg: Any) -> Any:
        """The `VisionTower` of a `TowerConfig`."""
        return import_module(self.module).Tower(cfg)

    def read(self, folder: Path) -> Any:
        """The `TowerConfig` of a folder."""
        return import_module(self.module).read(folder)


def _written_by(library: str) -> Callable[[Path, dict[str, Any]], bool]:
    """Whether a `config.json` is this library's."""

    def recognises(folder: Path, content: dict[str, Any]) -> bool:
        if content.get("library") == "torchvision":
            return library == "torchvision"
        if "model_type" in content:
            return library == "transformers"
        return library == "timm" and "architecture" in content and "pretrained_cfg" in content

    return recognises


LIBRARIES: Registry[Library] = Registry("tower library")
LIBRARIES.register(
    "open_clip",
    Library(
        "vlm.vision.towers.open_clip", lambda folder, _: (folder / "open_clip_config.json").is_file(), "open_clip_model"
    ),
)
for _name in ("torchvision", "transformers", "timm"):
    LIBRARIES.register(_name, Library(f"vlm.vision.towers.{_name}", _written_by(_name)))
