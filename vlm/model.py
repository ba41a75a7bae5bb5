"""The assembled vision-language model.

B sequences, T tokens, S tokens attended to, I pictures, N patches, D tower width, M visual tokens a picture,
W language width.
"""

from __future__ import annotations

import torch
from pydantic import model_validator
from torch import Tensor, nn

from vlm.alignment.dual_encoder import AlignmentConfig, DualHeads
from vlm.config import Config
from vlm.datasets.packing import IMAGE_SLOT
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.projector import ProjectorConfig
from vlm.vision.tower import TowerConfig, VisionTower


class ModelConfig(Config):
    tower: TowerConfig
    projector: ProjectorConfig
    language: LanguageConfig
    alignment: AlignmentConfig
    text_width: int
    """Width of the states the text head reads."""

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        self.projector.tokens(self.tower.grid)
        if self.alignment.text == "language" and self.text_width != self.language.width:
            raise ValueError(f"text_width {self.text_width} is not the language width {self.language.width}")
        return self

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one picture."""
        return self.projector.tokens(self.tower.grid)


class VisionLanguageModel(nn.Module):
    """One tower; a projector into the language model; two heads into the shared space."""

    def __init__(self, cfg: ModelConfig, tower: VisionTower, language: LanguageModel):
        super().__init__()
        self.cfg = cfg
        self.tower = tower
        self.language = language
        self.projector = cfg.projector.build(cfg.tower.width, cfg.language.width)
        self.alignment: DualHeads = cfg.alignment.build(cfg.tower.width, cfg.text_width)

    def embed(self, tokens_BT: Tensor, patches_IND: Tensor | None) -> Tensor:
        """Input embeddings `[B, T, W]`: words from the table, pictures in reading order at the image slots.

        Raises `ValueError` where the number of slots is not the number of visual tokens.
        """
        slots_BT = tokens_BT == IMAGE_SLOT
        x_BTW = self.language.embedding(tokens_BT.masked_fill(slots_BT, 0))
        slots = int(slots_BT.sum())
        pictures = 0 if patches_IND is None else len(patches_IND)
        if slots != pictures * self.cfg.visual_tokens:
            raise ValueError(
                f"the prompt has {slots} image slots, expected {pictures} pictures x "
                f"{self.cfg.visual_tokens} visual tokens = {pictures * self.cfg.visual_tokens}"
            )
        if patches_IND is None:
            return x_BTW
        visual_IMW = self.projector(patches_IND)
        return x_BTW.masked_scatter(slots_BT[..., None], visual_IMW.to(x_BTW.dtype))

    def forward(
        self,
        tokens_BT: Tensor,
        patches_IND: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, T, V]`."""
        x_BTW = self.embed(tokens_BT, patches_IND)
        return self.language.logits(self.language.hidden(x_BTW, positions_BT=positions_BT, mask_BTS=mask_BTS))


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights, not buffers: routing biases and load counts stay in float32."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
