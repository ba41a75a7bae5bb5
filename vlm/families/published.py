"""Vision-language models as their authors publish them: a folder, or a repository of the hub, by its `model_type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from pydantic import ConfigDict

from vlm.config import Config
from vlm.conversation.budget import PictureTokens
from vlm.files import read_json
from vlm.media.video.sampling import Clip
from vlm.models.tiled import Grid, Inputs, TiledModel
from vlm.vision.detail import TilingConfig
from vlm.weights.tensors import Stored, check_shapes


class Theirs(Config):
    """A published file: what we do not read may be in it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Processor(Protocol):
    """Conversations and pictures to a model's inputs, and ids back to text."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], images: Sequence[Any] | None = None) -> Inputs:
        """One conversation, `[1, T]`; `images` are what `vlm.media.images.load_image` takes, in reading order."""

    def question(self, text: str, seen: Image.Image | Clip) -> Inputs:
        """A question about a picture or a clip."""

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """The image slots of a picture with this grid."""

    def decode(self, ids: list[int]) -> str:
        """The text of a reply."""


@runtime_checkable
class TilesByContent(Processor, Protocol):
    """A processor that can choose a picture's tiles by what is in it."""

    tiling: TilingConfig


@dataclass(frozen=True)
class Published:
    name: str
    model: TiledModel
    processor: Processor
    stop: frozenset[int]
    """Tokens that end a reply."""


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


def fill(
    model: TiledModel,
    source: Callable[[str, tuple[int, ...]], dict[str, tuple[int, ...]]],
    stored: Mapping[str, Stored],
    folder: Path,
    family: str,
    dtype: torch.dtype,
) -> None:
    """Give everything but the language model its tensors.

    `source` says which tensors (name -> shape), put together along the first axis, are ours of this name and shape.
    Raises `BadInput` naming the tensors that are missing, unknown or of another shape.
    """
    ours = {name: tensor.shape for name, tensor in model.state_dict().items() if not name.startswith("language.")}
    sources = {name: source(name, tuple(shape)) for name, shape in ours.items()}
    check_shapes({name: shape for parts in sources.values() for name, shape in parts.items()}, stored, folder, family)
    state = {
        name: torch.cat([stored[part].read().to(dtype) for part in parts]).view(ours[name])
        for name, parts in sources.items()
    }
    model.load_state_dict(state, strict=False, assign=True)
