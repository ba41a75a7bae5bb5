"""The assembled vision-language model.

B sequences, T tokens, S tokens attended to, I pictures, N patches, D tower width, M visual tokens a picture,
W language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from vlm.alignment.dual_encoder import AlignmentConfig, DualHeads
from vlm.config import Config
from vlm.conversation.packing import IMAGE_SLOT
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.projector import ProjectorConfig
from vlm.vision.merging import MergeConfig, merge
from vlm.vision.tower import TowerConfig, VisionTower


class ModelConfig(Config):
    tower: TowerConfig
    projector: ProjectorConfig
    language: LanguageConfig
    alignment: AlignmentConfig
    text_width: int
    """Width of the states the text head reads."""
    merge: MergeConfig = MergeConfig()
    """What is left of the projector's tokens."""

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        self.projector.tokens(self.tower.grid)
        if self.alignment.text == "language" and self.text_width != self.language.width:
            raise ValueError(f"text_width {self.text_width} is not the language width {self.language.width}")
        return self

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one picture."""
        return self.clip_tokens(1)

    def clip_tokens(self, frames: int) -> int:
        """Visual tokens of a clip of so many frames."""
        return self.merge.tokens(self.projector.tokens(self.tower.grid), frames)

    def lines(self, frames: int) -> tuple[int, int]:
        """Visual tokens a line and lines of a clip in its prompt (a picture is one frame)."""
        return self.merge.lines(self.projector.tokens(self.tower.grid), frames)

    @model_serializer(mode="wrap")
    def _without_an_idle_merge(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A vector's space is named by this JSON, and merging has no part in it."""
        return {key: value for key, value in handler(self).items() if key != "merge" or not self.merge.idle}


class VisionLanguageModel(nn.Module):
    """One tower; a projector into the language model; two heads into the shared space."""

    def __init__(self, cfg: ModelConfig, tower: VisionTower, language: LanguageModel):
        super().__init__()
        self.cfg = cfg
        self.tower = tower
        self.language = language
        self.projector = cfg.projector.build(cfg.tower.width, cfg.language.width)
        self.alignment: DualHeads = cfg.alignment.build(cfg.tower.width, cfg.text_width)

    def visual(self, patches_IND: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Visual tokens `[V, W]` of pictures in reading order; `frames` says how many of them each clip has, by
        default one. Where they are merged clips are projected one by one, so that none depends on its neighbours."""
        if self.cfg.merge.idle:
            return self.projector(patches_IND).flatten(0, 1)
        clips = patches_IND.split([1] * len(patches_IND) if frames is None else list(frames))
        return torch.cat([merge(self.projector(clip), self.cfg.merge).x_TD for clip in clips])

    def embed(self, tokens_BT: Tensor, patches_IND: Tensor | None, frames: Sequence[int] | None = None) -> Tensor:
        """Input embeddings `[B, T, W]`: words from the table, pictures in reading order at the image slots.

        Raises `ValueError` where the number of slots is not the number of visual tokens.
        """
        slots_BT = tokens_BT == IMAGE_SLOT
        x_BTW = self.language.embedding(tokens_BT.masked_fill(slots_BT, 0))
        slots = int(slots_BT.sum())
        pictures = 0 if patches_IND is None else len(patches_IND)
        clips = [self.cfg.clip_tokens(number) for number in ([1] * pictures if frames is None else frames)]
        if slots != sum(clips):
            one = f"{pictures} pictures x {self.cfg.visual_tokens} visual tokens"
            needed = one if frames is None or self.cfg.merge.temporal == 1 else " + ".join(map(str, clips))
            raise ValueError(f"the prompt has {slots} image slots, expected {needed} = {sum(clips)}")
        if patches_IND is None:
            return x_BTW
        return x_BTW.masked_scatter(slots_BT[..., None], self.visual(patches_IND, frames).to(x_BTW.dtype))

    def forward(
        self,
        tokens_BT: Tensor,
        patches_IND: Tensor | None = None,
        frames: Sequence[int] | None = None,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, T, V]`."""
        x_BTW = self.embed(tokens_BT, patches_IND, frames)
        return self.language.logits(self.language.hidden(x_BTW, positions_BT=positions_BT, mask_BTS=mask_BTS))


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights, not buffers: routing biases and load counts stay in float32."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
