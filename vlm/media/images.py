"""One door for pictures: whatever a user hands over becomes an upright RGB image of bounded size.

Memory is bounded by `MAX_PIXELS`: a larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size, anything else larger is
refused before a pixel of it is allocated.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps

from vlm.errors import BadInput
from vlm.files import name_text
from vlm.media.colour import to_srgb
from vlm.media.depth import packing, swapped, to_8bit
from vlm.media.folders import list_media
from vlm.media.kinds import FORMATS, HEAD_BYTES, described, is_image, is_video, kind_of, kind_of_file

__all__ = ["is_image", "is_video", "list_media", "load_image"]  # those of `kinds` and `folders` under their old path

ImageSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray

MAX_PIXELS = 40_000_000
"""The most pixels decoded from one picture (about 160 MB a copy)."""

_ORIENTATION = 0x0112  # a tag of EXIF

# What Pillow's decoders raise on a file that is not what it claims to be.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


def check_file(path: Path, kind: str) -> None:
    """Raise `BadInput` unless `path` is a non-empty regular file that can be read and whose content nothing else
    claims; `kind` is what was expected."""
    name = name_text(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise BadInput(f"{name}: expected {kind}, got no such file") from None
    except (OSError, ValueError) as error:
        reason = _line(getattr(error, "strerror", None) or error)
        raise BadInput(f"{name:.200}: expected {kind}, got a path that cannot be used ({reason})") from None
    if stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{name}: expected {kind}, got a folder")
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{name}: expected {kind}, got a device, pipe or socket")
    if status.st_size == 0:
        raise BadInput(f"{name}: expected {kind}, got an empty file")
    if not os.access(path, os.R_OK):
        raise BadInput(f"{name}: expected {kind}, got a file that may not be read")
    found = kind_of_file(path)
    if found is not None and found.medium is None:
        with path.open("rb") as file:
            raise BadInput(f"{name}: expected {kind}, got {described(file.read(HEAD_BYTES), name)}")


def load_image(source: ImageSource, *, notes: list[str] | None = None, name: str = "image bytes") -> Image.Image:
    """`source` as an RGB image in sRGB, turned upright by its EXIF orientation; transparency lies over white.

    `source` is a path, a picture's encoded bytes, a PIL image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]
    of uint8, or of floats in 0..1. A PIL image is never changed. `notes` collects a line for each thing the user
    may want to know: a frame chosen, a size reduced, a range stretched. `name` is what messages call bytes.

    Raises `BadInput`, one line, where the source is missing, is no picture, is cut short, or is over `MAX_PIXELS`.
    """
    notes = [] if notes is None else notes
    if isinstance(source, np.ndarray):
        return _rgb(_from_array(source), "array")
    if isinstance(source, Image.Image):
        _check_pixels(source, "PIL image")
        return _decoded(source, "PIL image", notes)
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), name, notes)
    if not isinstance(source, str | Path):
        raise BadInput(
            f"image: expected a path, bytes, a PIL image or an array, got {type(source).__module__}."
            f"{type(source).__name__}"
        )
    if source == "":
        raise BadInput("image: expected a path, got an empty text")
    path = Path(source)
    check_file(path, "an image file")
    try:
        with path.open("rb") as stream:
            return _read(stream, name_text(path), notes)
    except PermissionError:
        raise BadInput(f"{name_text(path)}: expected an image file, got a file that may not be read") from None


def _read(stream: IO[bytes], name: str, notes: list[str]) -> Image.Image:
    with _open(stream, name) as image:
        if getattr(image, "is_animated", False) and image.format != "MPO":
            notes.append(f"{name}: several frames, the first one is used")
        full = image.size
        if image.format == "JPEG" and full[0] * full[1] > MAX_PIXELS and not image.info.get("progressive"):
            scale = next((s for s in (2, 4) if full[0] * full[1] <= MAX_PIXELS * s * s), 8)
            image.draft(image.mode, (max(1, full[0] // scale), max(1, full[1] // scale)))
            notes.append(f"{name}: {full[0]}x{full[1]} decoded at {image.size[0]}x{image.size[1]}")
        _check_pixels(image, name)
        return _decoded(image, name, notes, stream)


def _open(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """The picture's header, read by what reads pictures of its content.

    `Image.open` refuses or warns by a process-wide pixel limit before a JPEG can be asked for a smaller decode; the
    registered format is opened here without it, so that limit stays as other code set it.
    """
    head = stream.read(HEAD_BYTES)
    kind = kind_of(head, name)
    if kind is None or not kind.pillow:
        raise BadInput(f"{name}: expected an image ({', '.join(FORMATS)}), got {described(head, name)}")
    stream.seek(0)
    try:
        return _reader(kind.pillow)(stream, "")
    except Image.DecompressionBombError:
        raise BadInput(f"{name}: expected an image of at most {MAX_PIXELS} pixels, got a larger one") from None
    except _BROKEN as error:
        raise BadInput(f"{name}: expected a whole {kind.name} image, got a broken one ({_line(error)})") from None


def _reader(pillow: str) -> Callable[..., ImageFile.ImageFile]:
    if pillow == "HEIF":
        from pi_heif import HeifImageFile

        return HeifImageFile
    Image.init()
    return Image.OPEN[pillow][0]


def _check_pixels(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise BadInput(f"{name}: expected at least one pixel, got {width}x{height}")
    if width * height > MAX_PIXELS:
        raise BadInput(
            f"{name}: expected an image of at most {MAX_PIXELS} pixels, got {width}x{height} = {width * height}"
        )


def _decoded(image: Image.Image, name: str, notes: list[str], stream: IO[bytes] | None = None) -> Image.Image:
    """`stream` is what it was opened from, where it may be read again."""
    packed = packing(image)
    try:
        image.load()
    except Image.DecompressionBombError:
        raise BadInput(f"{name}: expected an image of at most {MAX_PIXELS} pixels, got a larger one") from None
    except _BROKEN as error:
        raise BadInput(f"{name}: expected a whole image, got a truncated or broken one ({_line(error)})") from None
    _check_pixels(image, name)
    shallow = to_8bit(image, packed, lambda: _low_bytes(stream, name, packed), name, notes)
    try:
        turn = image.getexif().get(_ORIENTATION)
        if turn not in (None, 1) and shallow is not image:
            shallow.getexif()[_ORIENTATION] = turn
        upright = shallow if turn in (None, 1) else ImageOps.exif_transpose(shallow)
    except _BROKEN:  # EXIF that cannot be read says nothing about orientation
        upright = shallow
    return _rgb(to_srgb(upright, name, notes), name)


def _low_bytes(stream: IO[bytes] | None, name: str, packed: str) -> Image.Image | None:
    """The picture in `stream` read so that the low bytes of its samples are taken for the high ones."""
    if stream is None:
        return None
    stream.seek(0)
    try:
        image = _open(stream, name)
        other = swapped(packed)
        image.tile = [
            tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
            for tile in image.tile
        ]
        image.load()
    except (BadInput, *_BROKEN):  # a packing that Pillow has not both ways
        return None
    return image


def _rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            flat = Image.new("RGB", image.size, "white")
            flat.paste(rgba, mask=rgba.getchannel("A"))
            return flat
        return image.convert("RGB")
    except _BROKEN:
        raise BadInput(f"{name}: expected a gray, palette, RGB or CMYK image, got mode {image.mode}") from None


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape[:2] if array.ndim == 3 and array.shape[2] == 1 else array.shape
    got = f"{array.dtype} {list(array.shape)}"
    if array.size == 0 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise BadInput(f"array: expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {got}")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise BadInput(f"array: expected an image of at most {MAX_PIXELS} pixels, got {got}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also refuses NaN
            raise BadInput(f"array: expected floats in 0..1, got {got} from {array.min()} to {array.max()}")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise BadInput(f"array: expected uint8 or floats in 0..1, got {got}")
    return Image.fromarray(np.ascontiguousarray(array.reshape(shape)))


def _line(error: BaseException | str) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
