"""Vision-language models as their authors publish them: a folder, or a repository of the hub, by its `model_type`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from vlm.errors import BadInput, unknown
from vlm.files import read_json
from vlm.language.checkpoints.tensors import Stored, check_shapes
from vlm.tiled_model import Inputs, TiledModel
from vlm.vision.images import ImageSource


class Processor(Protocol):
    """Conversations and pictures to a model's inputs, and ids back to text."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], images: Sequence[ImageSource] = ()) -> Inputs:
        """One conversation, `[1, T]`."""

    def question(self, text: str, frames: Sequence[Image.Image], times: Sequence[float] = ()) -> Inputs:
        """A question about a picture, or about a clip whose frames have times in seconds."""

    def decode(self, ids: list[int]) -> str:
        """The text of a reply."""


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
    from vlm.checkpoints import deepseek_vl2

    families = {"deepseek_vl_v2": deepseek_vl2.load}
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in families:
        raise BadInput(f"{folder / 'config.json'}: {unknown('vision-language model family', str(kind), families)}")
    return families[kind](folder, dtype)


def fill(
    model: TiledModel, names: Mapping[str, str], stored: Mapping[str, Stored], folder: Path, family: str,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    """Give everything but the language model its tensors, which are `stored` under names that begin as `names` says.

    Raises `BadInput` naming the tensors that are missing, unknown or of another shape.
    """
    theirs = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("language."):
            ours = next(prefix for prefix in names if name.startswith(prefix))
            theirs[names[ours] + name.removeprefix(ours)] = (name, tuple(tensor.shape))
    check_shapes({name: shape for name, (_, shape) in theirs.items()}, stored, folder, family)
    state = {ours: stored[name].read().to(dtype) for name, (ours, _) in theirs.items()}
    model.load_state_dict(state, strict=False, assign=True)
