"""Perceptual hashes: pictures that look alike have hashes that differ in few bits, whatever their size or compression.

The hash is pHash (Zauner 2010, section 3.2.1): which of the 8x8 lowest frequencies of the grey 32x32 picture are above
their median. Resizing, recompression and small changes of colour move few of the 64 bits. Mirroring only turns the sign
of every other column of frequencies, so the mirrored picture's hash costs nothing. Crops and rotations are not seen.

Letters: N pictures, M others, 8 bytes a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.media.images import check_file, load_image

SIDE, LOW = 32, 8
PLAIN = 4.0
"""Grey levels (standard deviation) below which there is too little in a picture for its hash to mean something."""
KNOWN_AT_ONCE, CELLS = 4096, 2**22
"""Known pictures, and pairs, compared at once: what bounds the memory of the search."""
READ_AT_ONCE = 64

_COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(LOW), np.arange(SIDE) + 0.5))
_COSINES[0] /= np.sqrt(2)  # rows of the discrete cosine transform (type II), all of one length
_MIRROR = np.where(np.arange(LOW) % 2, -1.0, 1.0)


@dataclass(frozen=True)
class Print:
    """What is kept of a picture: its file's sha256, its hash and its mirror image's [8] (None of a plain picture)."""

    digest: str
    bits: np.ndarray | None
    mirrored: np.ndarray | None


@dataclass(frozen=True)
class Match:
    """The nearest of the known pictures within a distance, and how many are within it."""

    row: int
    distance: int
    mirrored: bool
    matches: int


def fingerprint(path: Path) -> Print:
    """Raises `BadInput` where the file is no picture that can be read."""
    check_file(path, "an image file")
    content = path.read_bytes()
    bits = perceptual_hash(load_image(content))
    return Print(hashlib.sha256(content).hexdigest(), *(bits if bits is not None else (None, None)))


def perceptual_hash(image: Image.Image) -> tuple[np.ndarray, np.ndarray] | None:
    """The 64-bit hashes of a picture and of its mirror image, 8 bytes each; None where it is plain."""
    grey_HW = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    if grey_HW.std() < PLAIN:
        return None
    low_VU = _COSINES @ grey_HW @ _COSINES.T
    mirrored_VU = low_VU * _MIRROR
    return _above_median(low_VU), _above_median(mirrored_VU)


def fingerprints(paths: Sequence[Path], advance: Callable[[int], None]) -> tuple[dict[Path, Print], list[str]]:
    """The prints of the pictures that can be read, and one line for each of the others."""
    known: dict[Path, Print] = {}
    unreadable: list[str] = []
    with ThreadPoolExecutor() as pool:  # decoding leaves Python to others
        for start in range(0, len(paths), READ_AT_ONCE):
            chunk = paths[start : start + READ_AT_ONCE]
            for path, found in zip(chunk, pool.map(_try_fingerprint, chunk), strict=True):
                if isinstance(found, str):
                    unreadable.append(found)
                else:
                    known[path] = found
            advance(len(chunk))
    return known, unreadable


def nearest(known: Sequence[Print], asked: Sequence[Print], distance: int) -> list[Match | None]:
    """For each of `asked` (plain ones have none) the nearest of `known` that is at most `distance` bits away.

    Every pair is compared, in blocks of bounded memory: as a product of signs, 64 minus twice the bits that differ.
    """
    rows_known = [row for row, one in enumerate(known) if one.bits is not None]
    rows_asked = [row for row, one in enumerate(asked) if one.bits is not None]
    found: list[Match | None] = [None] * len(asked)
    if not rows_known or not rows_asked:
        return found
    known_N8 = np.stack([known[row].bits for row in rows_known])  # type: ignore[misc]
    step, asked_at_once = KNOWN_AT_ONCE, max(1, CELLS // KNOWN_AT_ONCE)
    for at in range(0, len(rows_asked), asked_at_once):
        rows = rows_asked[at : at + asked_at_once]
        best_M = np.full(len(rows), 65.0, np.float32)
        best_row_M, best_turned_M, within_M = (np.zeros(len(rows), np.int64) for _ in range(3))
        both = [_signs(np.stack([getattr(asked[row], name) for row in rows])) for name in ("bits", "mirrored")]
        for start in range(0, len(known_N8), step):
            signs_N64 = _signs(known_N8[start : start + step])
            plain_MN, turned_MN = ((64 - asked_M64 @ signs_N64.T) / 2 for asked_M64 in both)
            near_MN = np.minimum(plain_MN, turned_MN)
            within_M += (near_MN <= distance).sum(axis=1)
            column_M = near_MN.argmin(axis=1)
            here = np.arange(len(rows))
            closer_M = near_MN[here, column_M] < best_M
            best_M = np.where(closer_M, near_MN[here, column_M], best_M)
            best_row_M = np.where(closer_M, start + column_M, best_row_M)
            best_turned_M = np.where(closer_M, turned_MN[here, column_M] < plain_MN[here, column_M], best_turned_M)
        for i, row in enumerate(rows):
            if best_M[i] <= distance:
                nearest_row = rows_known[int(best_row_M[i])]
                found[row] = Match(nearest_row, int(best_M[i]), bool(best_turned_M[i]), int(within_M[i]))
    return found


def _try_fingerprint(path: Path) -> Print | str:
    try:
        return fingerprint(path)
    except BadInput as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"


def _above_median(low_VU: np.ndarray) -> np.ndarray:
    return np.packbits(low_VU > np.median(low_VU))


def _signs(bits_N8: np.ndarray) -> np.ndarray:
    return np.unpackbits(bits_N8, axis=1).astype(np.float32) * 2 - 1
