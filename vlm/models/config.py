"""A card's model as data, and built."""

from __future__ import annotations

from itertools import product
from typing import Any

from pydantic import PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from vlm.alignment.dual_encoder import AlignmentConfig
from vlm.config import Config
from vlm.conversation.inputs import Grid
from vlm.conversation.packing import IMAGE_SLOT
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.models.arrangements import Arrangement, FlatArrangement, FrameArrangement, NativeArrangement
from vlm.models.vision_language import VisionLanguageModel
from vlm.projector import ProjectorConfig
from vlm.vision.merging import MergeConfig
from vlm.vision.tiling import Size, best_resolution
from vlm.vision.tower import TowerConfig, VisionTower

ANY_SHAPE = ("mlp", "perceiver", "q_former")
"""Kinds of projector that take a picture's patches whatever their rows and columns."""
LATER = ("merge", "tiles", "alignment", "text_width")
"""Keys that are left out of a config's JSON where they say nothing: a vector's space is named by that JSON."""


class TilesConfig(Config):
    """A picture is seen as a whole and in tiles of the tower's size, as many as suit its shape."""

    most: PositiveInt = 4

    def grid(self, size: Size, tile: int) -> Grid:
        """Tiles wide and high of a picture of this (width, height); (0, 0) where the whole is all that is seen."""
        shapes = [(w, h) for w, h in product(range(1, self.most + 1), repeat=2) if w * h <= self.most]
        wide, high = best_resolution(size, [(w * tile, h * tile) for w, h in shapes])
        return (0, 0) if (wide, high) == (tile, tile) else (wide // tile, high // tile)


class ModelConfig(Config):
    tower: TowerConfig
    projector: ProjectorConfig
    language: LanguageConfig
    alignment: AlignmentConfig | None = None
    """The two heads into a space that pictures and texts share; `None` for a model that only writes."""
    text_width: PositiveInt | None = None
    """Width of the states the text head reads."""
    merge: MergeConfig = MergeConfig()
    """What is left of the projector's tokens."""
    tiles: TilesConfig | None = None
    """`None` sees every picture as a whole."""

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if (self.alignment is None) != (self.text_width is None):
            raise ValueError("alignment and text_width: expected both or neither")
        if self.alignment is not None and self.alignment.text == "language" and self.text_width != self.language.width:
            raise ValueError(f"text_width {self.text_width} is not the language width {self.language.width}")
        own_shape = self.tower.budget is not None
        if own_shape and self.projector.kind not in ANY_SHAPE:
            raise ValueError(
                f"projector {self.projector.kind} needs a square of patches, but a tower with a budget keeps a "
                f"picture's shape; expected one of {', '.join(ANY_SHAPE)}"
            )
        if (own_shape or self.tiles is not None) and not self.merge.idle:
            raise ValueError("merge: expected pictures that are seen as a whole each, got tiles or a tower's budget")
        if own_shape and self.tiles is not None:
            raise ValueError("tiles: expected a tower without a budget, which keeps a picture's shape as it is")
        if not own_shape:
            self.projector.tokens(self.tower.grid)
        return self

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one picture that is seen as a whole."""
        return self.clip_tokens(1)

    def clip_tokens(self, frames: int) -> int:
        """Visual tokens of a clip of so many frames."""
        return self.merge.tokens(self.projector.tokens(self.tower.grid), frames)

    def lines(self, frames: int) -> tuple[int, int]:
        """Visual tokens a line and lines of a clip in its prompt (a picture is one frame)."""
        return self.merge.lines(self.projector.tokens(self.tower.grid), frames)

    def shaped_tokens(self, grid: Grid) -> int:
        """Visual tokens of a picture that keeps its shape, of so many patches across and down."""
        return self.projector.tokens(1) * (grid[0] * grid[1] if self.projector.kind == "mlp" else 1)

    def arrangement(self) -> Arrangement:
        if self.tower.budget is not None:
            return NativeArrangement()
        return FrameArrangement(self.merge) if self.tiles is None else FlatArrangement()

    def build(self, tower: VisionTower, language: LanguageModel) -> VisionLanguageModel:
        """The model of these two parts; projector and heads start at random."""
        projector = self.projector.build(self.tower.width, self.language.width)
        alignment = None
        if self.alignment is not None and self.text_width is not None:
            alignment = self.alignment.build(self.tower.width, self.text_width)
        return VisionLanguageModel(tower, projector, self.arrangement(), language, alignment, image_token=IMAGE_SLOT)

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        silent = {key for key in LATER if getattr(self, key) == type(self).model_fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in silent}
