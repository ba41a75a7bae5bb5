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
from vlm.errors import BadInput, unknown
from vlm.files import read_json
from vlm.language.checkpoints.tensors import Stored, check_shapes
from vlm.tiled_model import Grid, Inputs, TiledModel
from vlm.video.sampling import Clip
from vlm.vision.detail import TilingConfig
from vlm.vision.tokens import PictureTokens


class Theirs(Config):
    """A published file: what we do not read may be in it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Processor(Protocol):
    """Conversations and pictures to a model's inputs, and ids back to text."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], images: Sequence[Any] | None = None) -> Inputs:
        """One conversation, `[1, T]`; `images` are what `vlm.vision.images.load_image` takes, in reading order."""

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


def load_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Published:
    """The model in a folder of `config.json`, safetensors, tokenizer and processor, in evaluation mode.

    Raises `BadInput` for a family that is not here, and where the folder's files do not fit together.
    """
    from vlm.checkpoints import deepseek_vl2, llava_onevision, smolvlm

    families = {
        "deepseek_vl_v2": deepseek_vl2.load,
        "idefics3": smolvlm.load,
        "llava_onevision": llava_onevision.load,
        "smolvlm": smolvlm.load,
    }
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in families:
        raise BadInput(f"{folder / 'config.json'}: {unknown('vision-language model family', str(kind), families)}")
    return families[kind](folder, dtype)


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
