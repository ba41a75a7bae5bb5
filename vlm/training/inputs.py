"""A training example as model inputs: its prompt, and its visual tokens.

M visual tokens of a picture, P patches, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlm.conversation.messages import Message
from vlm.datasets.examples import Example
from vlm.datasets.opening import open_example
from vlm.media.open import Media
from vlm.models.arrangements import FrameArrangement
from vlm.models.assembled import Assembled
from vlm.models.processor import Prompt
from vlm.training.features import Features

BLANK = Image.new("RGB", (1, 1))


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

    def prompt(self, item: Media, text: str, replies: list[Message] | None = None) -> Prompt:
        """The prompt in which a user asks `text` about it, with `replies` after it."""
        processor = self.parts.processor
        return processor.prompt([*processor.user_messages(text, item), *(replies or [])], [item])

    def visual(self, example: Example, prompt: Prompt, flipped: bool = False) -> list[Tensor]:
        """The visual tokens `[M, D]` of each picture of the prompt, with gradients to what learns."""
        model: Any = self.parts.model
        (item,), (layout,) = prompt.media, prompt.layouts
        if self.features is not None and example.pictures:
            return [model.project(self.features.tokens(example.pictures, flipped), layout.grids[0])]
        pixels = self.parts.processor.pixels(item, layout)
        if any(p.requires_grad for p in model.tower.parameters()):
            return model.visual(pixels, layout.grids)
        counts = [model.arrangement.views(grid) for grid in layout.grids]
        seen = []
        for grid, picture in zip(layout.grids, pixels.split(counts), strict=True):
            with torch.no_grad():  # nothing below the projector learns
                patches_NPD = model.encode_patches(picture, grid)
            seen.append(model.project(patches_NPD, grid))
        return seen


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
