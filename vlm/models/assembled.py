"""A model with what turns conversations into its input: what a card, a published folder and a saved one all become."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlm.conversation.tokenizer import TextTokenizer
from vlm.media.video.config import VideoConfig
from vlm.models.processor import Processor
from vlm.models.tensor_names import TensorNames
from vlm.models.vision_language import VisionLanguageModel, cast_parameters

if TYPE_CHECKING:
    from vlm.alignment.text_encoder import TextEncoder
    from vlm.models.card import ModelCard


@dataclass(frozen=True)
class Assembled:
    name: str
    family: str
    """The `model_type` of its folder; a card's is `vlm`."""
    model: VisionLanguageModel
    processor: Processor
    text_encoder: TextEncoder | None = None
    """The sentence encoder whose states the text head reads; `None` where the language model's are read."""
    video: VideoConfig = field(default_factory=VideoConfig)
    card: ModelCard | None = None
    folder: Path | None = None
    """Where a published model's own files are."""
    names: TensorNames | None = None
    """What that folder calls the tensors."""

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.processor.tokenizer

    def named(self) -> dict[str, Tensor]:
        """Every parameter and buffer by the name that trained weights have: the text encoder's follow its name."""
        found: dict[str, Tensor] = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        if self.text_encoder is not None:
            found |= {f"text_encoder.{name}": p for name, p in self.text_encoder.named_parameters()}
        return found

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Assembled:
        """Itself, moved. Routing biases and rotary tables stay in float32."""
        for module in (self.model, self.text_encoder):
            if module is not None:
                module.to(device=device)
                if dtype is not None:
                    cast_parameters(module, dtype)
        return self
