"""Dynamic tiling: a picture as a global view and the tiles of a larger one (DeepSeek-VL2, arXiv:2412.10302, section 2).

The larger view is the candidate resolution that keeps most of the picture's own pixels, with the picture fitted into it
and the rest filled with one colour. Sizes are (width, height), as Pillow's; a grid is (tiles wide, tiles high).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image

Size = tuple[int, int]


def best_resolution(size: Size, candidates: Iterable[Size]) -> Size:
    """The candidate that shows a picture of this size with the most pixels, never counting more than it has.

    Equal ones: the one that is filled up least, then the first.
    """
    width, height = size

    def rank(candidate: Size) -> tuple[int, int]:
        wide, high = candidate
        scale = min(wide / width, high / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - wide * high

    return max(candidates, key=rank)


def within(candidates: Sequence[Size], tile: int, most: int) -> list[Size]:
    """The candidates of at most so many tiles: a bound on the visual tokens that is known before the run.

    Raises `ValueError` where none is left.
    """
    left = [(wide, high) for wide, high in candidates if (wide // tile) * (high // tile) <= most]
    if not left:
        raise ValueError(f"no candidate resolution has at most {most} tiles")
    return left


def fitted_size(size: Size, space: Size) -> Size:
    """The largest (width, height) of this aspect ratio that the space holds, rounded; a side may come to nothing."""
    width, height = space
    if size[0] * height > size[1] * width:
        height = round(size[1] / size[0] * width)
    elif size[0] * height < size[1] * width:
        width = round(size[0] / size[1] * height)
    return width, height


def fitted(image: Image.Image, size: Size, color: tuple[int, int, int]) -> Image.Image:
    """The picture as large as `size` allows with its aspect ratio kept, in the middle of `color`.

    The same pixels as Pillow's `ImageOps.pad` with bicubic resampling. A picture so thin that nothing of it is left
    gives `color` alone.
    """
    width, height = fitted_size(image.size, size)
    canvas = Image.new("RGB", size, color)
    if width and height:
        place = round((size[0] - width) * 0.5), round((size[1] - height) * 0.5)
        canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), place)
    return canvas


def tiles(image: Image.Image, tile: int) -> list[Image.Image]:
    """The picture cut into squares, row by row."""
    tops, lefts = range(0, image.height, tile), range(0, image.width, tile)
    return [image.crop((left, top, left + tile, top + tile)) for top in tops for left in lefts]
