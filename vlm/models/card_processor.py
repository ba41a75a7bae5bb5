"""The processor of a card's model: our conversation template, and the tower's own preprocessing.

N tiles, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor

from vlm.conversation.budget import PictureTokens
from vlm.conversation.inputs import Grid
from vlm.conversation.messages import Message
from vlm.conversation.packing import IMAGE_SLOT
from vlm.conversation.template import Line, Template
from vlm.conversation.tokenizer import TextTokenizer
from vlm.media.open import Media
from vlm.models.config import ModelConfig
from vlm.models.processor import Layout, Processor
from vlm.vision.native_resolution import Patches, patch_shape
from vlm.vision.tiling import fitted, tiles
from vlm.vision.tower import TowerInput

Preprocess = Callable[[Sequence[Image.Image]], TowerInput]


class CardProcessor(Processor):
    """Pictures stand a line each before the words; a clip has a line a frame, or one where its frames are merged."""

    image_token = IMAGE_SLOT
    pad_token = 0

    def __init__(self, cfg: ModelConfig, tokenizer: TextTokenizer, preprocess: Preprocess, with_times: bool = False):
        """`with_times`: the prompt states the time of each frame of a clip."""
        self.cfg, self.tokenizer, self.preprocess, self.with_times = cfg, tokenizer, preprocess, with_times
        self.template = Template(tokenizer)
        self.stop_tokens = frozenset({self.template.end})
        self.squashed = cfg.tower.squashed if cfg.tiles is None else None

    def layouts(self, messages: Sequence[Message], media: Sequence[Media]) -> list[Layout]:
        return [Layout(self._grids(item)) for item in media]

    def ids(self, messages: Sequence[Message], media: Sequence[Media], layouts: Sequence[Layout]) -> list[int]:
        lines = [self._lines(item, layout) for item, layout in zip(media, layouts, strict=True)]
        return self.template.ids(messages, lines)

    def reply(self, text: str) -> list[int]:
        return self.template.reply(text)

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        if self.cfg.tower.budget is not None:
            return PictureTokens(self.cfg.shaped_tokens(grid))
        if self.cfg.tiles is not None:
            return PictureTokens((grid[0] * grid[1] + 1) * self.cfg.visual_tokens, grid)
        return PictureTokens(self.cfg.clip_tokens(grid[0]), frames=grid[0])

    def by_size(self, media: Sequence[Media]) -> bool:
        return self.cfg.tiles is not None and not any(item.is_clip for item in media)

    def media_tokens(self, layout: Layout) -> tuple[PictureTokens, ...]:
        """A clip's frames one by one where the prompt has a line of each."""
        if self.cfg.tower.budget is not None or self.cfg.tiles is not None:
            return super().media_tokens(layout)
        frames = layout.grids[0][0]
        tokens, lines = self.cfg.lines(frames)
        return (PictureTokens(tokens, frames=frames // lines),) * lines

    def pixels(self, item: Media, layout: Layout) -> Tensor:
        if self.cfg.tiles is None:
            seen = self.preprocess(list(item.frames))
            return seen.patches_BNP if isinstance(seen, Patches) else seen
        views = [
            view for frame, grid in zip(item.frames, layout.grids, strict=True) for view in self._views(frame, grid)
        ]
        made = self.preprocess(views)
        assert isinstance(made, Tensor)
        return made

    def _grids(self, item: Media) -> tuple[Grid, ...]:
        tower = self.cfg.tower
        if tower.budget is not None:
            shapes = [patch_shape(frame.height, frame.width, tower.patch, tower.budget) for frame in item.frames]
            return tuple((columns, rows) for rows, columns in shapes)
        if self.cfg.tiles is None:
            return ((len(item.frames), 1),)
        if item.is_clip:
            return ((0, 0),) * len(item.frames)
        return (self.cfg.tiles.grid(item.frames[0].size, tower.image_size),)

    def _lines(self, item: Media, layout: Layout) -> list[Line]:
        counted = self.media_tokens(layout)
        says = item.is_clip and item.timed and self.with_times
        times = item.times if says else (None,) * len(counted)
        if len(times) != len(counted):
            raise ValueError(f"expected the time of each of {len(counted)} pictures, got {len(times)}")
        return [Line(picture.tokens, time) for picture, time in zip(counted, times, strict=True)]

    def _views(self, image: Image.Image, grid: Grid) -> list[Image.Image]:
        """The tiles row by row, then the whole."""
        tile = self.cfg.tower.image_size
        red, green, blue = (int(255 * mean) for mean in self.cfg.tower.mean)
        if not grid[0]:
            return [image]
        large = fitted(image, (grid[0] * tile, grid[1] * tile), (red, green, blue))
        return [*tiles(large, tile), image]
