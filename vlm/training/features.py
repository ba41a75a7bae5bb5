"""Visual features computed once and kept on disk, so that training reads them instead of running the tower.

P pictures, N patches, D tower width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlm.files import atomic_path

SHARD = 256
UNREAD = Image.new("RGB", (32, 32))
"""In the place of a picture that cannot be read."""

Load = Callable[[Path], Image.Image | None]
"""A picture; none where it cannot be read, which is kept as well: its row is NaN."""
Encode = Callable[[list[Image.Image]], tuple[Tensor, Tensor]]
"""Pictures to patch tokens `[B, N, D]` and pooled vectors `[B, D]`."""


class Features:
    """Rows of patch tokens and pooled vectors in bfloat16, memory-mapped from shards."""

    def __init__(self, shards: list[Path], pictures: Sequence[Path], flipped: bool = False):
        self._shards = [load_file(shard) for shard in shards]
        self._row = {(str(picture), flipped): row for row, picture in enumerate(pictures)}

    def merge(self, other: Features) -> Features:
        """Take in another cache's rows (other pictures, or the mirrored view); returns itself."""
        offset = len(self._shards) * SHARD
        self._shards += other._shards
        self._row |= {key: row + offset for key, row in other._row.items()}
        return self

    def rows(self, pictures: Sequence[Path], flipped: bool = False) -> list[int]:
        return [self._row[str(picture), flipped] for picture in pictures]

    def readable(self, picture: Path, flipped: bool = False) -> bool:
        """Whether it is here and was read."""
        row = self._row.get((str(picture), flipped))
        return row is not None and not bool(self._shards[row // SHARD]["pooled"][row % SHARD].isnan().any())

    def tokens(self, pictures: Sequence[Path], flipped: bool = False) -> Tensor:
        """Patch tokens `[P, N, D]`."""
        return torch.stack([self._shards[r // SHARD]["tokens"][r % SHARD] for r in self.rows(pictures, flipped)])

    def pooled(self, pictures: Sequence[Path], flipped: bool = False) -> Tensor:
        """Pooled vectors `[P, D]`."""
        return torch.stack([self._shards[r // SHARD]["pooled"][r % SHARD] for r in self.rows(pictures, flipped)])


def cached_features(
    pictures: Sequence[Path],
    encode: Encode,
    *,
    folder: Path,
    key: str,
    load: Load,
    flipped: bool = False,
    batch: int = 32,
    report: Callable[[int, int], None] | None = None,
) -> Features:
    """Features of `pictures`, from `folder` or computed now.

    A shard is written whole or not at all, so an interrupted run goes on where it stopped. `key` names the tower's
    weights and settings; with the files' names and sizes it decides which cache is the right one.
    """
    stamp = json.dumps([key, flipped, [[str(p), p.stat().st_size] for p in pictures]])
    home = folder / hashlib.sha256(stamp.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    shards = [home / f"{start // SHARD:05d}.safetensors" for start in range(0, len(pictures), SHARD)]
    for number, shard in enumerate(shards):
        chunk = pictures[number * SHARD : (number + 1) * SHARD]
        if not shard.exists():
            tokens, pooled = [], []
            for start in range(0, len(chunk), batch):
                found = [load(picture) for picture in chunk[start : start + batch]]
                images = [UNREAD if image is None else image for image in found]
                if flipped:
                    images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
                tokens_BND, pooled_BD = encode(images)
                unread_B = torch.tensor([image is None for image in found])
                tokens.append(tokens_BND.to(torch.bfloat16).masked_fill(unread_B[:, None, None], torch.nan))
                pooled.append(pooled_BD.to(torch.bfloat16).masked_fill(unread_B[:, None], torch.nan))
            with atomic_path(shard) as temporary:
                save_file({"tokens": torch.cat(tokens), "pooled": torch.cat(pooled)}, temporary)
        if report is not None:
            report(min((number + 1) * SHARD, len(pictures)), len(pictures))
    return Features(shards, pictures, flipped)
