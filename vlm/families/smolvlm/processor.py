"""SmolVLM's processor: conversations, pictures and clips to ids, tiles and grids.

T tokens, I pictures (and frames), N tiles of all of them, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from vlm.conversation.budget import PictureTokens
from vlm.conversation.messages import IMAGE
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.pixels import normalised
from vlm.families.smolvlm import pictures, prompt
from vlm.families.smolvlm.config import Edge, PictureFields, ProcessorFields
from vlm.media.images import ImageSource, load_image
from vlm.media.video.sampling import Clip
from vlm.models.tiled import Grid, Inputs
from vlm.vision.detail import View, chosen


class Processor:
    """Ids and pixels are those of transformers' processor (tested); control tokens in a text are read."""

    def __init__(self, fields: ProcessorFields, tokenizer: TextTokenizer):
        self.fields, self.tokenizer = fields, tokenizer
        self.tiling = fields.tiling
        self.image_token = tokenizer.control(IMAGE)
        self.end = tokenizer.control(prompt.END)

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], images: Sequence[ImageSource | Clip] | None = None
    ) -> Inputs:
        """`input_ids [1, T]`, `pixels [N, 3, H, W]`, `grids [I, 2]`; the last two are `None` without pictures.

        A message has a `role` (`user`, `assistant`, `system`) and as `content` a text with `<image>` where pictures
        stand, or a list of parts: `{"type": "text", "text": ...}`, `{"type": "image"}`, `{"type": "video"}`. `images`
        are the pictures and clips in that order. A picture's tiles come row by row, the whole last; a grid of (0, 0)
        is the whole alone. Raises `BadInput` where they and their places differ in number.
        """
        texts: list[str] = []
        tiles: list[torch.Tensor] = []
        grids: list[Grid] = []
        slots = self.fields.image_seq_len
        opened = [image if isinstance(image, Clip) else load_image(image) for image in images or ()]
        edges = iter(self._edges([image for image in opened if not isinstance(image, Clip)]))
        for image in opened:
            if isinstance(image, Clip):
                if not image.frames:
                    raise BadInput(f"{image.source}: expected a clip of at least one frame, got none")
                seen = [pictures.frame(frame.convert("RGB"), self.fields.clips) for frame in image.frames]
                tiles.append(normalised(torch.cat(seen), self.fields.clips))
                grids += [(0, 0)] * len(seen)
                texts.append(prompt.clip(image.times, image.duration, slots))
            else:
                pixels_NCHW, grid = pictures.split(image, self._with_edge(next(edges)))
                tiles.append(normalised(pixels_NCHW, self.fields.images))
                grids.append(grid)
                texts.append(prompt.picture(grid, slots))
        ids = torch.tensor([self.tokenizer.encode(prompt.conversation(messages, texts))])
        return Inputs(ids, torch.cat(tiles), torch.tensor(grids)) if tiles else Inputs(ids, None, None)

    def question(self, text: str, seen: Image.Image | Clip) -> Inputs:
        """A question about a picture or a clip."""
        kind = "video" if isinstance(seen, Clip) else "image"
        return self([{"role": "user", "content": [{"type": kind}, {"type": "text", "text": text}]}], [seen])

    def visual_tokens(self, grid: Grid) -> int:
        """Image slots of a picture with this grid: known before the model runs."""
        return self.picture_tokens(grid).tokens

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """The same with what it is made of; tiles are told apart by words."""
        return PictureTokens((grid[0] * grid[1] + 1) * self.fields.image_seq_len, grid)

    def _edges(self, images: Sequence[Image.Image]) -> list[int]:
        """How long each picture's longer side is made, as `tiling` says: what the authors make it, or by content."""
        fields, edges = self.fields.images, pictures.edges(self.fields.images)
        if self.tiling.by == "size":
            return [fields.size.longest_edge] * len(images)
        views = []
        for image in images:
            sizes, grids = zip(*(pictures.seen(image.size, edge, fields) for edge in edges), strict=True)
            views.append([View(self.visual_tokens(grid), size) for grid, size in zip(grids, sizes, strict=True)])
        return [edges[place] for place in chosen(images, views, self.tiling)]

    def _with_edge(self, edge: int) -> PictureFields:
        return self.fields.images.model_copy(update={"size": Edge(longest_edge=edge)})

    def decode(self, ids: list[int]) -> str:
        """Without control tokens."""
        return self.tokenizer.decode(ids)
