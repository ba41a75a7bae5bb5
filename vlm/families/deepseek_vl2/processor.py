"""DeepSeek-VL2's processor: conversations and pictures to ids, tiles and grids.

T tokens, I pictures, N tiles of all pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from vlm.conversation.budget import PictureTokens
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.deepseek_vl2.config import ProcessorFields
from vlm.media.images import ImageSource, load_image
from vlm.media.video.sampling import Clip
from vlm.models.tiled import Grid, Inputs
from vlm.vision.detail import View, chosen
from vlm.vision.tiling import Size, best_resolution, fitted, fitted_size, tiles, within

MOST_TILED = 2
"""With more pictures in a conversation each is one tile."""


class Processor:
    """Ids and pixels are those of the authors' processor at inference (tested); control tokens in a text are read."""

    def __init__(self, fields: ProcessorFields, tokenizer: TextTokenizer, *, bos: int, eos: int):
        self.fields, self.tokenizer = fields, tokenizer
        self.bos, self.eos = bos, eos
        self.tiling = fields.tiling
        self.image_token = tokenizer.control(fields.image_token)
        self.pad = tokenizer.control(fields.pad_token)

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        images: Sequence[ImageSource] | None = None,
        *,
        most_tiles: int | None = None,
    ) -> Inputs:
        """`input_ids [1, T]`, `pixels [N, 3, H, W]`, `grids [I, 2]`; the last two are `None` without pictures.

        A message has a `role` (`user` or `<|User|>`, `assistant` or `<|Assistant|>`, and `system` as the first) and a
        text as `content`, with `<image>` where a picture of `images` stands. `most_tiles` bounds the local tiles of a
        picture. Raises `BadInput` where the pictures and their places differ in number.
        """
        pictures = [load_image(image) for image in images or ()]
        grids = self.grids(pictures, most_tiles)
        ids = self._ids(messages, [self.visual_tokens(grid) for grid in grids])
        if not pictures:
            return Inputs(torch.tensor([ids]), None, None)
        views = [self._views(picture, grid) for picture, grid in zip(pictures, grids, strict=True)]
        return Inputs(torch.tensor([ids]), self._pixels([*chain(*views)]), torch.tensor(grids))

    def question(self, text: str, seen: Image.Image | Clip) -> Inputs:
        """A question about a picture, or about the frames of a clip in order (their times are not said)."""
        frames = seen.frames if isinstance(seen, Clip) else [seen]
        content = self.fields.image_token * len(frames) + "\n" + text
        return self([{"role": "user", "content": content}], frames)

    def grid(self, size: Size, pictures: int = 1, most_tiles: int | None = None) -> Grid:
        """Tiles wide and high of a picture of this (width, height) among so many pictures, by its size."""
        if pictures > MOST_TILED:
            return 1, 1
        wide, high = best_resolution(size, self._candidates(most_tiles))
        return wide // self.fields.tile, high // self.fields.tile

    def grids(self, pictures: Sequence[Image.Image], most_tiles: int | None = None) -> list[Grid]:
        """Tiles wide and high of each picture of a conversation, as `tiling` says: by size, or by content."""
        if self.tiling.by == "size":
            return [self.grid(picture.size, len(pictures), most_tiles) for picture in pictures]
        candidates, tile = self._candidates(most_tiles), self.fields.tile
        grids = [(wide // tile, high // tile) for wide, high in candidates]
        tokens = [self.visual_tokens(grid) for grid in grids]
        views = [
            [View(cost, fitted_size(picture.size, space)) for cost, space in zip(tokens, candidates, strict=True)]
            for picture in pictures
        ]
        return [grids[place] for place in chosen(pictures, views, self.tiling)]

    def visual_tokens(self, grid: Grid) -> int:
        """Image slots of a picture with this grid: known before the model runs."""
        return self.picture_tokens(grid).tokens

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """The same with what it is made of: a newline a row of both views, a separator between them."""
        wide, high = grid
        side = self.fields.side
        separators = side + 1 + high * side
        return PictureTokens(side**2 * (1 + wide * high) + separators, grid, separators)

    def decode(self, ids: list[int]) -> str:
        """With control tokens, of which some say what was found where."""
        return self.tokenizer.decode(ids, control=True)

    def _candidates(self, most_tiles: int | None) -> Sequence[Size]:
        candidates = self.fields.candidate_resolutions
        try:
            return within(candidates, self.fields.tile, most_tiles) if most_tiles else candidates
        except ValueError as error:
            raise BadInput(f"most_tiles: {error}") from None

    def _ids(self, messages: Sequence[Mapping[str, Any]], visual_tokens: Sequence[int]) -> list[int]:
        slots = [[self.image_token] * tokens for tokens in visual_tokens]
        ids = [self.bos]
        used = 0
        for number, message in enumerate(messages):
            where = f"message {number + 1}"
            role, content = message.get("role"), message.get("content")
            if not isinstance(content, str):
                raise BadInput(f"{where}: expected a text as content, got {type(content).__name__}")
            pieces = content.strip().split(self.fields.image_token)
            if role in ("user", "<|User|>"):
                pieces[0] = f"<|User|>: {pieces[0]}"
                pieces[-1] += "\n\n<|Assistant|>:"
            elif len(pieces) > 1:
                raise BadInput(f"{where}: expected pictures in messages of the user only, got one in a {role} message")
            elif role not in ("assistant", "<|Assistant|>") and (role != "system" or number):
                raise BadInput(f"{where}: expected role user or assistant (or system first), got {role!r}")
            ids += self.tokenizer.encode(pieces[0])
            for piece in pieces[1:]:
                ids += slots[used] if used < len(slots) else []
                ids += self.tokenizer.encode(piece)
                used += 1
            if role in ("assistant", "<|Assistant|>"):
                ids.append(self.eos)
        if used != len(slots):
            raise BadInput(f"messages: expected {len(slots)} {self.fields.image_token} for as many images, got {used}")
        return ids[:-1] if ids[-1] == self.eos else ids

    def _views(self, picture: Image.Image, grid: Grid) -> list[Image.Image]:
        """The global view and the tiles, both made of the original."""
        tile, (red, green, blue) = self.fields.tile, self.fields.image_mean
        color = int(255 * red), int(255 * green), int(255 * blue)
        large = fitted(picture, (grid[0] * tile, grid[1] * tile), color)
        return [fitted(picture, (tile, tile), color), *tiles(large, tile)]

    def _pixels(self, views: list[Image.Image]) -> Tensor:
        pixels_NCHW = torch.stack([pil_to_tensor(view) for view in views]).float().div_(255)
        if not self.fields.normalize:
            return pixels_NCHW
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.fields.image_mean, self.fields.image_std))
        return pixels_NCHW.sub_(mean).div_(std)
