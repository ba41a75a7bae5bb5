"""The one vision-language model: tower, projector, arrangement, language model, and where there is one a shared space.

A card's model and a published one are the same class; they differ in their parts. B sequences, T tokens, S tokens
attended to, I pictures, N tiles of all pictures, P patches of a tile, M visual tokens, D width of the states at hand
(the tower's, then the language model's), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vlm.alignment.dual_encoder import DualHeads
from vlm.conversation.inputs import Grid, Grids
from vlm.devices import device_of, dtype_of
from vlm.errors import BadInput
from vlm.language.attention.masks import padded
from vlm.language.decoder import LanguageModel
from vlm.models.arrangements import Arrangement
from vlm.vision.native_resolution import Patches
from vlm.vision.tower import TowerInput, VisionTower


class VisionLanguageModel(nn.Module):
    """Pictures come as tiles; their visual tokens stand among the words."""

    def __init__(
        self,
        tower: VisionTower | None,
        projector: nn.Module,
        arrangement: Arrangement,
        language: LanguageModel,
        alignment: DualHeads | None = None,
        *,
        image_token: int,
        video_token: int | None = None,
    ):
        """Without a tower it is a language model alone. `image_token`, and `video_token` where a family tells clips
        apart, stand at image slots; an id below zero is no word of the vocabulary, so that no text can be taken for a
        picture."""
        super().__init__()
        self.tower = tower
        self.projector = projector
        self.arrangement = arrangement
        self.language = language
        self.alignment = alignment
        self.image_token, self.video_token = image_token, video_token

    @property
    def device(self) -> torch.device:
        return self.language.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language.embedding.weight.dtype

    def encode_patches(self, pixels: Tensor, grid: Grid = (1, 1)) -> Tensor:
        """Patch tokens `[N, P, D]` of one picture's tiles `[N, C, H, W]`, or of a picture in its own shape, whose
        patches come as `[1, P, numbers]`; on the tower's device and in its type."""
        if self.tower is None:
            raise BadInput("pixels: expected none, since this model reads texts only")
        like = next(self.tower.parameters())
        pixels = pixels.to(like.device, like.dtype)
        seen: TowerInput = pixels
        if self.tower.cfg.budget is not None:
            seen = Patches(pixels[:, : grid[0] * grid[1]], ((grid[1], grid[0]),))
        return self.tower(seen).tokens_BND

    def project(self, patches_NPD: Tensor, grid: Grid) -> Tensor:
        """Visual tokens `[M, D]` of one picture from the patch tokens of its tiles."""
        return self.project_all(patches_NPD, [grid])[0]

    def project_all(self, patches_NPD: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """The same of several pictures, their tiles in order: equal but for rounding, and faster to train through."""
        like = next(self.projector.parameters(), self.language.embedding.weight)
        visual_NMD = self.projector(patches_NPD.to(like.device, like.dtype))
        pictures = visual_NMD.split([self.arrangement.views(grid) for grid in grids])
        return [self.arrangement(picture, grid) for picture, grid in zip(pictures, grids, strict=True)]

    def visual(self, pixels_NCHW: Tensor | None, grids: Grids | None) -> list[Tensor]:
        """Visual tokens `[M, D]` of each picture, of those that are seen at all.

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
        pictures = zip(pairs, pixels_NCHW.split(counts), strict=True)
        return [self.project(self.encode_patches(picture, grid), grid) for grid, picture in pictures if len(picture)]

    def embed(self, tokens_BT: Tensor, seen: Sequence[Tensor] = ()) -> Tensor:
        """Input embeddings `[B, T, D]`: words from the table, the visual tokens of `seen` at the image slots, in
        reading order.

        Raises `BadInput` where the number of slots is not the number of visual tokens.
        """
        slots_BT = self.slots(tokens_BT)
        x_BTD = self.language.embedding(tokens_BT.masked_fill(slots_BT, 0))
        slots, found = int(slots_BT.sum()), sum(map(len, seen))
        if slots != found:
            needed = " + ".join(str(len(tokens)) for tokens in seen) or "0"
            raise BadInput(f"input_ids: expected {needed} image slots for {len(seen)} pictures, got {slots}")
        if not slots:
            return x_BTD
        return x_BTD.masked_scatter(slots_BT[..., None], torch.cat(list(seen)).to(x_BTD.dtype))

    def slots(self, tokens_BT: Tensor) -> Tensor:
        """True `[B, T]` where visual tokens stand: of pictures, and of clips where the family tells them apart."""
        at_image = tokens_BT == self.image_token
        return at_image if self.video_token is None else at_image | (tokens_BT == self.video_token)

    def forward(
        self,
        tokens_BT: Tensor,
        pixels_NCHW: Tensor | None = None,
        grids: Grids | None = None,
        real_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, T, V]`; `real_BT` is false at padding, of which there is none by default."""
        positions_BT = mask_BTS = None
        if real_BT is not None and not bool(real_BT.all()):
            positions_BT, mask_BTS = padded(real_BT.bool(), tokens_BT.shape[1])
        x_BTD = self.embed(tokens_BT, self.visual(pixels_NCHW, grids))
        return self.language.logits(self.language.hidden(x_BTD, positions_BT=positions_BT, mask_BTS=mask_BTS))


def move(modules: Iterable[nn.Module], device: str | torch.device | None, dtype: str | torch.dtype | None) -> None:
    """Move modules to a device, and cast their weights; `None` leaves as it is. Raises `BadInput` as `vlm.devices`."""
    for module in modules:
        if device is not None:
            module.to(device_of(device))
        if dtype is not None:
            cast_parameters(module, dtype_of(dtype))


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights, not buffers: routing biases and load counts stay in float32."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
