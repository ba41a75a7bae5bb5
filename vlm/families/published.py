"""What published folders have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import ConfigDict

from vlm.config import Config
from vlm.files import read_json
from vlm.vision.content_tiling import TilingConfig


class PublishedConfig(Config):
    """A published file: what we do not read may be in it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@runtime_checkable
class TilesByContent(Protocol):
    """A processor that can choose a picture's tiles by what is in it."""

    tiling: TilingConfig


def special_token(folder: Path, key: str) -> str | None:
    """A token that `tokenizer_config.json` names, `bos_token` for one; it may be described by an object."""
    path = folder / "tokenizer_config.json"
    token = read_json(path).get(key) if path.is_file() else None
    return token.get("content") if isinstance(token, dict) else token


def reply_ends(folder: Path) -> list[int]:
    """The tokens that end a reply, as `generation_config.json` has them."""
    path = folder / "generation_config.json"
    ends = read_json(path).get("eos_token_id") if path.is_file() else None
    return [] if ends is None else ends if isinstance(ends, list) else [ends]
