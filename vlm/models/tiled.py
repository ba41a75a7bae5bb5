"""A published vision-language model: pictures come as tiles, and their visual tokens stand among the words.

B sequences, T tokens, I pictures, N tiles of all pictures, C channels, P patches of a tile, D tower width, M visual
tokens of a tile, W language width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlm.errors import BadInput
from vlm.language.attention.masks import padded
from vlm.language.decoder import LanguageModel

Grid = tuple[int, int]
"""Tiles wide and tiles high of one picture."""
Grids = Tensor | Sequence[Grid]
"""Of several pictures: `[I, 2]`, or one pair each."""


class Inputs(NamedTuple):
    """What a processor makes and a model reads, in the order of its arguments."""

    input_ids: Tensor
    """`[B, T]`, the image token at each slot."""
    pixels: Tensor | None
    """`[N, C, H, W]` float32, the pictures of all sequences in reading order; `None` where there are none."""
    grids: Tensor | None
    """`[I, 2]`, each picture's tiles wide and tiles high, or what the family's arrangement knows them by."""


class Arrangement(nn.Module):
    """How a family puts the visual tokens of a picture's tiles in order."""

    def views(self, grid: Grid) -> int:
        """Tiles in `pixels` of a picture with this grid."""
        raise NotImplementedError

    def forward(self, visual_NMW: Tensor, grid: Grid) -> Tensor:
        """The picture's visual tokens `[tokens, W]`."""
        raise NotImplementedError


class TiledModel(nn.Module):
    """Tower, projector, arrangement, language model."""

    def __init__(
        self,
        tower: nn.Module,
        projector: nn.Module,
        arrangement: Arrangement,
        language: LanguageModel,
        *,
        image_token: int,
        pad_token: int,
        video_token: int | None = None,
    ):
        super().__init__()
        self.tower = tower
        self.projector = projector
        self.arrangement = arrangement
        self.language = language
        self.image_token, self.video_token, self.pad_token = image_token, video_token, pad_token

    def visual(self, pixels_NCHW: Tensor | None, grids: Grids | None) -> list[Tensor]:
        """Visual tokens `[tokens, W]` of each picture.

        One picture at a time, so that what is seen of one does not depend on its neighbours in the batch. Raises
        `BadInput` where the grids and the number of tiles disagree.
        """
        pairs = [(int(wide), int(high)) for wide, high in (() if grids is None else grids)]
        counts = [self.arrangement.views(grid) for grid in pairs]
        if not sum(counts):
            return []
        tiles = 0 if pixels_NCHW is None else len(pixels_NCHW)
        if pixels_NCHW is None or tiles != sum(counts):
            raise BadInput(f"pixels: expected {' + '.join(map(str, counts))} tiles for {len(pairs)} grids, got {tiles}")
        like = self.language.embedding.weight
        seen = []
        for grid, picture in zip(pairs, pixels_NCHW.to(like.device, like.dtype).split(counts), strict=True):
            if len(picture):
                seen.append(self.arrangement(self.projector(self.tower(picture)), grid))
        return seen

    def embed(self, tokens_BT: Tensor, pixels_NCHW: Tensor | None = None, grids: Grids | None = None) -> Tensor:
        """Input embeddings `[B, T, W]`: words from the table, pictures in reading order at the image slots.

        Raises `BadInput` where the number of slots is not the number of visual tokens.
        """
        slots_BT = self.slots(tokens_BT)
        x_BTW = self.language.embedding(tokens_BT)
        seen = self.visual(pixels_NCHW, grids)
        if int(slots_BT.sum()) != sum(map(len, seen)):
            needed = " + ".join(str(len(tokens)) for tokens in seen) or "0"
            raise BadInput(f"input_ids: expected {needed} image slots for {len(seen)} pictures, got {slots_BT.sum()}")
        return x_BTW.masked_scatter(slots_BT[..., None], torch.cat(seen).to(x_BTW.dtype)) if seen else x_BTW

    def slots(self, tokens_BT: Tensor) -> Tensor:
        """True `[B, T]` where visual tokens stand: of pictures, and of clips where the family tells them apart."""
        at_image = tokens_BT == self.image_token
        return at_image if self.video_token is None else at_image | (tokens_BT == self.video_token)

    def real(self, tokens_BT: Tensor) -> Tensor:
        """False `[B, T]` at the padding a sequence begins with."""
        return (tokens_BT != self.pad_token).cumsum(1) > 0

    def forward(
        self,
        tokens_BT: Tensor,
        pixels_NCHW: Tensor | None = None,
        grids: Grids | None = None,
        real_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, T, V]`; `real_BT` is false at padding, by default at the padding a sequence begins with."""
        real_BT = self.real(tokens_BT) if real_BT is None else real_BT.bool()
        positions_BT = mask_BTT = None
        if not bool(real_BT.all()):
            positions_BT, mask_BTT = padded(real_BT, tokens_BT.shape[1])
        x_BTW = self.embed(tokens_BT, pixels_NCHW, grids)
        return self.language.logits(self.language.hidden(x_BTW, positions_BT=positions_BT, mask_BTS=mask_BTT))


def left_padded(rows: Sequence[Inputs], pad_token: int) -> Inputs:
    """Several processed conversations as one batch, filled on the left."""
    longest = max(row.input_ids.shape[1] for row in rows)
    ids = [nn.functional.pad(row.input_ids, (longest - row.input_ids.shape[1], 0), value=pad_token) for row in rows]
    pixels = [row.pixels for row in rows if row.pixels is not None]
    grids = [row.grids for row in rows if row.grids is not None]
    return Inputs(torch.cat(ids), torch.cat(pixels) if pixels else None, torch.cat(grids) if grids else None)
