"""What a published folder calls the tensors of a model, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vlm.language.checkpoints.family import Family
from vlm.language.checkpoints.folder import family_tensors
from vlm.models.vision_language import VisionLanguageModel
from vlm.weights.tensors import Stored, check_shapes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorNames:
    family: Family
    """Of the language model."""
    full: Callable[[str], str]
    """The folder's name of a tensor of that family."""
    source: Callable[[str, Shape], dict[str, Shape]]
    """Ours of everything else, by name and shape -> theirs (name -> shape) that make it, put together along the first
    axis."""

    def fill(
        self, model: nn.Module, stored: Mapping[str, Stored], folder: Path, family: str, dtype: torch.dtype
    ) -> None:
        """Give everything but the language model its tensors.

        Raises `BadInput` naming the tensors that are missing, unknown or of another shape.
        """
        ours = {name: tuple(t.shape) for name, t in model.state_dict().items() if not name.startswith("language.")}
        sources = {name: self.source(name, shape) for name, shape in ours.items()}
        expected = {name: shape for parts in sources.values() for name, shape in parts.items()}
        check_shapes(expected, stored, folder, family)
        state = {
            name: torch.cat([stored[part].read().to(dtype) for part in parts]).view(ours[name])
            for name, parts in sources.items()
        }
        model.load_state_dict(state, strict=False, assign=True)

    def tensors(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Every tensor of the model by the folder's name; a space of our own, which no published family has, is left
        out."""
        found = {self.full(name): tensor for name, tensor in family_tensors(model.language, self.family).items()}
        for name, tensor in model.state_dict().items():
            if name.startswith(("language.", "alignment.")):
                continue
            parts = self.source(name, tuple(tensor.shape))
            rows = [shape[0] if shape else 1 for shape in parts.values()]
            pieces = tensor.detach().reshape(sum(rows), -1).split(rows)
            found |= {part: piece.reshape(parts[part]) for part, piece in zip(parts, pieces, strict=True)}
        return found
