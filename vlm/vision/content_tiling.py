"""Tiling by content: the smallest view of a picture that loses no detail, under a budget of visual tokens.

What a view loses is measured: the picture's luminance is shrunk to the view's size, enlarged again and compared. Of
several pictures those gain resolution first whose loss falls most for a token. Sizes are (width, height).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch.nn import functional as F

from vlm.config import Config
from vlm.errors import BadInput
from vlm.vision.tiling import Size

PIXELS = 1024 * 1024
"""Of the luminance that is looked at: a larger picture is measured in this size."""
BLOCK = 16
WORST = 0.02
"""The loss is that of the worst fiftieth of the blocks: a page with one line of text is mostly white."""


class TilingConfig(Config):
    """How many tiles a picture gets: by its size as its authors do, or by its content."""

    by: Literal["size", "content"] = "size"
    budget: PositiveInt | None = None
    """The most visual tokens of all pictures of a conversation together."""
    tolerance: NonNegativeFloat = 0.1
    """The loss below which more tiles are not worth their tokens; 1 is the step from black to white."""

    @model_validator(mode="after")
    def _is_used(self) -> TilingConfig:
        if self.by == "size" and self.budget is not None:
            raise ValueError(f"expected by: content with a budget of {self.budget} tokens, got by: size")
        return self


class View(NamedTuple):
    """One way to look at a picture."""

    tokens: int
    size: Size
    """What the picture is shrunk to; beyond its own it is only enlarged."""


class Option(NamedTuple):
    """What a view costs and loses."""

    tokens: int
    loss: float


def choose_views(pictures: Sequence[Image.Image], views: Sequence[Sequence[View]], cfg: TilingConfig) -> list[int]:
    """Which of its views each picture is seen in. Raises `BadInput` where the budget does not pay for the smallest."""
    options, places = [], []
    for picture, ways in zip(pictures, views, strict=True):
        kept = _larger(ways)
        lost = losses(picture, [ways[place].size for place in kept])
        options.append([Option(ways[place].tokens, loss) for place, loss in zip(kept, lost, strict=True)])
        places.append(kept)
    return [kept[best] for kept, best in zip(places, allocate(options, cfg.budget, cfg.tolerance), strict=True)]


def losses(picture: Image.Image, sizes: Sequence[Size]) -> list[float]:
    """What views of these sizes lose, 0 to 1: the root mean square difference in the worst of the blocks."""
    scale = min(1.0, sqrt(PIXELS / (picture.width * picture.height)))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    grey = picture.convert("L").resize(size, Image.Resampling.BICUBIC)
    whole = np.asarray(grey, np.float32)
    found: dict[Size, float] = {}
    for wanted in sizes:
        small = max(1, min(wanted[0], size[0])), max(1, min(wanted[1], size[1]))
        if small not in found:
            seen = grey.resize(small, Image.Resampling.BICUBIC).resize(size, Image.Resampling.BICUBIC)
            found[small] = _worst(whole - np.asarray(seen, np.float32)) if small != size else 0.0
        found[wanted] = found[small]
    return [found[wanted] for wanted in sizes]


def allocate(options: Sequence[Sequence[Option]], budget: int | None, tolerance: float) -> list[int]:
    """The index of the option each picture takes.

    All begin with the fewest tokens. While the budget lasts, a picture that loses more than `tolerance` takes the
    option whose loss falls most a token, or, where one is within tolerance, the cheapest such. Pictures with the same
    options rise together or not at all, so that their order decides nothing. Raises `BadInput` where the budget is too
    small.
    """
    alike: dict[tuple[Option, ...], list[int]] = {}
    for number, ways in enumerate(options):
        alike.setdefault(tuple(ways), []).append(number)
    taken = {ways: min(ways) for ways in alike}
    spent = sum(taken[ways].tokens * len(rows) for ways, rows in alike.items())
    if budget is not None and spent > budget:
        raise BadInput(
            f"tiling: expected a budget of at least {spent} visual tokens for {len(options)} pictures, got {budget}"
        )
    while True:
        steps = []
        for ways, rows in alike.items():
            now = taken[ways]
            for option in _worth_taking(ways, now, tolerance):
                extra = (option.tokens - now.tokens) * len(rows)
                if budget is None or spent + extra <= budget:
                    steps.append(((now.loss - option.loss) / (option.tokens - now.tokens), -extra, ways, option))
        if not steps:
            break
        _, less, ways, option = max(steps)
        taken[ways], spent = option, spent - less
    place = {number: ways.index(taken[ways]) for ways, rows in alike.items() for number in rows}
    return [place[number] for number in range(len(options))]


def _worth_taking(ways: Sequence[Option], now: Option, tolerance: float) -> list[Option]:
    """Better options than `now`, up to the cheapest that is within tolerance."""
    if now.loss <= tolerance:
        return []
    better = sorted(option for option in ways if option.tokens > now.tokens and option.loss < now.loss)
    enough = next((place for place, option in enumerate(better) if option.loss <= tolerance), len(better))
    return better[: enough + 1]


def _larger(ways: Sequence[View]) -> list[int]:
    """The views that are larger than every cheaper one, cheapest first."""
    kept: list[int] = []
    for place in sorted(range(len(ways)), key=lambda place: (ways[place].tokens, -ways[place].size[0], place)):
        if not kept or ways[place].size > ways[kept[-1]].size:
            kept.append(place)
    return kept


def _worst(difference: np.ndarray) -> float:
    """Root mean square in the worst blocks, rounded so that it is the same on every machine."""
    squares = torch.from_numpy(difference / 255).square()[None, None]
    blocks = F.avg_pool2d(squares, BLOCK, ceil_mode=True, count_include_pad=False).flatten()
    worst = blocks.topk(ceil(len(blocks) * WORST)).values
    return round(worst.mean().sqrt().item(), 6)
