"""A training sample as model inputs: its prompt, and its visual tokens.

M visual tokens of a picture, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlm.conversation.inputs import Grid
from vlm.datasets.examples import Example
from vlm.datasets.opening import open_example
from vlm.media.kinds import is_video
from vlm.media.open import Media, open_media
from vlm.models.arrangements import FrameArrangement
from vlm.models.assembled import Assembled
from vlm.models.processor import Layout, Prompt
from vlm.training.features import Features

BLANK = Image.new("RGB", (1, 1))


@dataclass(frozen=True)
class Shown:
    """A prompt, and where the patches of its pictures and clips come from."""

    prompt: Prompt
    files: tuple[tuple[Path, ...], ...]
    """Of each picture or clip its files whose patches are kept; none where it is open."""
    flipped: bool = False


def uses_cached_features(parts: Assembled) -> bool:
    """Whether patch tokens can be computed once and cached: each frame is one view, and the tower is frozen."""
    tower = parts.model.tower
    frozen = tower is not None and not any(p.requires_grad for p in tower.parameters())
    return frozen and isinstance(parts.model.arrangement, FrameArrangement)


class TrainingInputs:
    """Prompts and visual tokens of examples: from cached `features` where there are some, else from the files."""

    def __init__(self, parts: Assembled, features: Features | None):
        self.parts, self.features = parts, features

    def media(self, example: Example, flipped: bool = False) -> Media:
        """The example's picture or clip. Where patches are kept no file is opened: how a card's model sees a picture as
        a whole depends on the number of frames alone."""
        if self.features is not None and example.pictures:
            frames = (BLANK,) * len(example.pictures)
            times = tuple(float(i) for i in range(len(frames))) if len(frames) > 1 else ()
            return Media(frames, times, source=example.id, timed=False)
        item = open_example(example, self.parts.video.sampling)
        return item if not flipped else replace(item, frames=tuple(map(mirrored, item.frames)))

    def opened(self, sources: Sequence[str | bytes]) -> tuple[list[tuple[Path, ...]], list[Media]]:
        """The pictures and clips of a conversation, and of each its file where its patches are kept. Raises `BadInput`
        for one that cannot be opened."""
        files: list[tuple[Path, ...]] = []
        media: list[Media] = []
        for source in sources:
            if isinstance(source, str) and self._kept(source):
                files.append((Path(source),))
                media.append(Media((BLANK,), source=source))
            else:
                files.append(())
                media.append(open_media(source, self.parts.video.sampling))
        return files, media

    def prompt(self, item: Media, text: str) -> Prompt:
        """The prompt in which a user asks `text` about it."""
        return self.parts.processor.prompt(self.parts.processor.user_messages(text, item), [item])

    def visual(self, shown: Sequence[Shown]) -> list[Tensor]:
        """The visual tokens `[M, D]` of each picture of the prompts, with gradients to what learns."""
        model: Any = self.parts.model
        patches: list[Tensor] = []
        grids: list[Grid] = []
        for one in shown:
            for files, item, layout in zip(one.files, one.prompt.media, one.prompt.layouts, strict=True):
                patches += self._patches(files, item, layout, one.flipped)
                grids += layout.grids
        if len({tokens.shape[1] for tokens in patches}) == 1:
            return model.project_all(torch.cat(patches), grids)
        return [model.project(tokens, grid) for tokens, grid in zip(patches, grids, strict=True)]

    def _kept(self, source: str) -> bool:
        features = self.features
        return features is not None and not is_video(source) and features.readable(Path(source))

    def _patches(self, files: tuple[Path, ...], item: Media, layout: Layout, flipped: bool) -> list[Tensor]:
        """The patch tokens `[N, P, D]` of each picture; with gradients only where the tower learns."""
        model: Any = self.parts.model
        if self.features is not None and files:
            return [self.features.tokens(files, flipped)]
        tiles = self.parts.processor.pixels(item, layout).split(list(map(model.arrangement.views, layout.grids)))
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in model.tower.parameters())
        with torch.set_grad_enabled(learns):
            return [model.encode_patches(own, grid) for own, grid in zip(tiles, layout.grids, strict=True)]


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
