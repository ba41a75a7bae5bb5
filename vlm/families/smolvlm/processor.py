"""SmolVLM's processor: conversations, pictures and clips to ids, tiles and grids.

T tokens, I pictures (and frames), N tiles of all of them, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from PIL import Image
from torch import Tensor

from vlm.conversation.budget import PictureTokens
from vlm.conversation.inputs import Grid
from vlm.conversation.messages import IMAGE, Message
from vlm.conversation.tokenizer import TextTokenizer
from vlm.families.pixels import normalised
from vlm.families.smolvlm import pictures, prompt
from vlm.families.smolvlm.config import Edge, PictureFields, ProcessorFields
from vlm.media.open import Media
from vlm.models.processor import Layout, Processor
from vlm.vision.content_tiling import View, choose_views

WHOLE: Grid = (0, 0)


class SmolVLMProcessor(Processor):
    """Ids and pixels are those of transformers' processor (tested); control tokens in a text are read.

    A picture's tiles come row by row, the whole last; a grid of (0, 0) is the whole alone. A clip's frames have a grid
    each. `placeholders`: `<image>` stands for a picture or a clip.
    """

    def __init__(
        self, fields: ProcessorFields, tokenizer: TextTokenizer, pad_token: int, stop_tokens: Iterable[int] = ()
    ):
        self.fields, self.tokenizer, self.pad_token = fields, tokenizer, pad_token
        self.tiling = fields.tiling
        self.image_token = tokenizer.control(IMAGE)
        self.stop_tokens = frozenset({tokenizer.control(prompt.END), *stop_tokens})

    def layouts(self, messages: Sequence[Message], media: Sequence[Media]) -> list[Layout]:
        stills = [item.frames[0] for item in media if not item.is_clip]
        edges = iter(self._edges(stills))
        return [self._layout(item, edges) for item in media]

    def ids(self, messages: Sequence[Message], media: Sequence[Media], layouts: Sequence[Layout]) -> list[int]:
        slots = self.fields.image_seq_len
        shown = [
            prompt.clip(item.times, item.duration, slots) if item.is_clip else prompt.picture(layout.grids[0], slots)
            for item, layout in zip(media, layouts, strict=True)
        ]
        return self.tokenizer.encode(prompt.conversation(messages, shown))

    def reply(self, text: str) -> list[int]:
        return self.tokenizer.encode(f" {text.strip()}{prompt.END}")

    def pixels(self, item: Media, layout: Layout) -> Tensor:
        if item.is_clip:
            seen = [pictures.frame(frame.convert("RGB"), self.fields.clips) for frame in item.frames]
            return normalised(torch.cat(seen), self.fields.clips)
        tiles_NCHW, _ = pictures.split(item.frames[0], self._with_edge(layout.edge or 0))
        return normalised(tiles_NCHW, self.fields.images)

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """Tiles are told apart by words."""
        return PictureTokens((grid[0] * grid[1] + 1) * self.fields.image_seq_len, grid)

    def _layout(self, item: Media, edges: Iterable[int]) -> Layout:
        if item.is_clip:
            return Layout((WHOLE,) * len(item.frames))
        edge = next(iter(edges))
        return Layout((pictures.seen(item.frames[0].size, edge, self.fields.images)[1],), edge)

    def _edges(self, images: Sequence[Image.Image]) -> list[int]:
        """How long each picture's longer side is made, as `tiling` says: what the authors make it, or by content."""
        fields, edges = self.fields.images, pictures.edges(self.fields.images)
        if self.tiling.by == "size":
            return [fields.size.longest_edge] * len(images)
        views = []
        for image in images:
            sizes, grids = zip(*(pictures.seen(image.size, edge, fields) for edge in edges), strict=True)
            views.append([View(self.visual_tokens(grid), size) for grid, size in zip(grids, sizes, strict=True)])
        return [edges[place] for place in choose_views(images, views, self.tiling)]

    def _with_edge(self, edge: int) -> PictureFields:
        return self.fields.images.model_copy(update={"size": Edge(longest_edge=edge)})
