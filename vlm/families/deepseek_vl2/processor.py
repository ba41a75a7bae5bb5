"""DeepSeek-VL2's processor: conversations and pictures to ids, tiles and grids.

T tokens, I pictures, N tiles of all pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from vlm.conversation.budget import PictureTokens
from vlm.conversation.inputs import Grid
from vlm.conversation.messages import Message, question
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.deepseek_vl2.config import ProcessorFields
from vlm.media.open import Media
from vlm.models.processor import Layout, Processor
from vlm.vision.content_tiling import View, choose_views
from vlm.vision.tiling import Size, best_resolution, fitted, fitted_size, tiles, within

MOST_TILED = 2
"""With more pictures in a conversation each is one tile."""


class DeepSeekProcessor(Processor):
    """Ids and pixels are those of the authors' processor at inference (tested); control tokens in a text are read.

    The frames of a clip are pictures one after another; their times are not said.
    """

    def __init__(self, fields: ProcessorFields, tokenizer: TextTokenizer, *, bos: int, eos: int):
        self.fields, self.tokenizer = fields, tokenizer
        self.bos, self.eos, self.stop_tokens = bos, eos, frozenset({eos})
        self.tiling = fields.tiling
        self.most_tiles: int | None = None
        """Bounds the local tiles of a picture."""
        self.image_token = tokenizer.control(fields.image_token)
        self.pad_token = tokenizer.control(fields.pad_token)

    @property
    def placeholders(self) -> Mapping[str, str]:  # type: ignore[override]
        return {self.fields.image_token: "image"}

    def user_messages(self, text: str, item: Media) -> list[Message]:
        return question(f"\n{text}", item.is_clip)

    def layouts(self, messages: Sequence[Message], media: Sequence[Media]) -> list[Layout]:
        grids = iter(self.grids([frame for item in media for frame in item.frames], self.most_tiles))
        return [Layout(tuple(next(grids) for _ in item.frames)) for item in media]

    def ids(self, messages: Sequence[Message], media: Sequence[Media], layouts: Sequence[Layout]) -> list[int]:
        shown = iter(layouts)
        ids = [self.bos]
        for number, (role, parts) in enumerate(messages):
            where = f"message {number + 1}"
            if role != "user" and any(part.kind != "text" for part in parts):
                raise BadInput(f"{where}: expected pictures in messages of the user only, got one in a {role} message")
            if role == "system" and number:
                raise BadInput(f"{where}: expected role user or assistant (or system first), got {role!r}")
            pieces, slots = [""], []
            for part in parts:
                if part.kind == "text":
                    pieces[-1] += part.text
                else:
                    slots += [self.visual_tokens(grid) for grid in next(shown).grids]
                    pieces += [""] * (len(slots) + 1 - len(pieces))
            pieces[0] = pieces[0].lstrip()
            pieces[-1] = pieces[-1].rstrip()
            if role == "user":
                pieces[0] = f"<|User|>: {pieces[0]}"
                pieces[-1] += "\n\n<|Assistant|>:"
            ids += self.tokenizer.encode(pieces[0])
            for tokens, piece in zip(slots, pieces[1:], strict=True):
                ids += [self.image_token] * tokens + self.tokenizer.encode(piece)
            if role == "assistant":
                ids.append(self.eos)
        return ids[:-1] if ids[-1] == self.eos else ids

    def reply(self, text: str) -> list[int]:
        return [*self.tokenizer.encode(text.strip()), self.eos]

    def pixels(self, item: Media, layout: Layout) -> Tensor:
        views = [
            view for frame, grid in zip(item.frames, layout.grids, strict=True) for view in self._views(frame, grid)
        ]
        return self._pixels(views)

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
        return [grids[place] for place in choose_views(pictures, views, self.tiling)]

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """A newline a row of both views, a separator between them."""
        wide, high = grid
        side = self.fields.side
        separators = side + 1 + high * side
        return PictureTokens(side**2 * (1 + wide * high) + separators, grid, separators)

    def by_size(self, media: Sequence[Media]) -> bool:
        return sum(len(item.frames) for item in media) <= MOST_TILED

    def decode(self, ids: list[int]) -> str:
        """With control tokens, of which some say what was found where."""
        return self.tokenizer.decode(ids, control=True)

    def _candidates(self, most_tiles: int | None) -> Sequence[Size]:
        candidates = self.fields.candidate_resolutions
        try:
            return within(candidates, self.fields.tile, most_tiles) if most_tiles else candidates
        except ValueError as error:
            raise BadInput(f"most_tiles: {error}") from None

    def _views(self, picture: Image.Image, grid: Grid) -> list[Image.Image]:
        """The global view and the tiles, both made of the original."""
        tile, (red, green, blue) = self.fields.tile, self.fields.image_mean
        color = int(255 * red), int(255 * green), int(255 * blue)
        large = fitted(picture, (grid[0] * tile, grid[1] * tile), color)
        return [fitted(picture, (tile, tile), color), *tiles(large, tile)]

    def _pixels(self, views: list[Image.Image]) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        pixels_NCHW = torch.stack([pil_to_tensor(view) for view in views]).float().div_(255)
        if not self.fields.normalize:
            return pixels_NCHW
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.fields.image_mean, self.fields.image_std))
        return pixels_NCHW.sub_(mean).div_(std)
