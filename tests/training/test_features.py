from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlm.training import features
from vlm.training.features import Features, cached_features


def encode(images: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.stack([torch.tensor(np.asarray(image), dtype=torch.float32).mean(dim=2) for image in images])
    return rows, rows.mean(dim=1)


class Counter:
    """Opens pictures; fails at the picture with the given number."""

    def __init__(self, fail_at: int = -1):
        self.opened, self.fail_at = 0, fail_at

    def __call__(self, path: Path) -> Image.Image:
        if self.opened == self.fail_at:
            raise RuntimeError("the power went")
        self.opened += 1
        return Image.open(path)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Ten pictures; shards of four."""
    monkeypatch.setattr(features, "SHARD", 4)
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
    return paths


def read(pictures: list[Path], folder: Path, load: Counter, key: str = "k", flipped: bool = False) -> Features:
    return cached_features(pictures, encode, folder=folder, key=key, load=load, flipped=flipped, batch=3)


def test_rows_are_the_pictures_in_any_order(pictures: list[Path], tmp_path: Path) -> None:
    cache = read(pictures, tmp_path / "cache", Counter())
    wanted = [pictures[9], pictures[0], pictures[5], pictures[0]]
    tokens, pooled = encode([Image.open(path) for path in wanted])
    assert torch.equal(cache.tokens(wanted), tokens.bfloat16())
    assert torch.equal(cache.pooled(wanted), pooled.bfloat16())


def test_an_interrupted_run_goes_on_where_it_stopped(pictures: list[Path], tmp_path: Path) -> None:
    whole = read(pictures, tmp_path / "whole", Counter())
    with pytest.raises(RuntimeError, match="power"):
        read(pictures, tmp_path / "cut", Counter(fail_at=7))
    again = Counter()
    resumed = read(pictures, tmp_path / "cut", again)
    assert again.opened == 6  # the first shard of four was whole
    assert torch.equal(resumed.tokens(pictures), whole.tokens(pictures))
    assert torch.equal(resumed.pooled(pictures), whole.pooled(pictures))
    third = Counter()
    read(pictures, tmp_path / "cut", third)
    assert third.opened == 0
    assert not [path for path in (tmp_path / "cut").rglob(".*")]


def test_another_key_or_picture_is_another_cache(pictures: list[Path], tmp_path: Path) -> None:
    read(pictures, tmp_path / "cache", Counter())
    for other in ("key", "file"):
        if other == "file":
            Image.new("RGB", (6, 6)).save(pictures[0])
        load = Counter()
        read(pictures, tmp_path / "cache", load, key="other" if other == "key" else "k")
        assert load.opened == 10


def test_mirrored_rows_are_their_own(pictures: list[Path], tmp_path: Path) -> None:
    plain = read(pictures, tmp_path / "cache", Counter())
    both = read(pictures, tmp_path / "cache", Counter()).merge(
        read(pictures, tmp_path / "cache", Counter(), flipped=True)
    )
    assert torch.equal(both.tokens(pictures), plain.tokens(pictures))
    assert torch.equal(both.tokens(pictures, flipped=True), plain.tokens(pictures).flip(2))
    with pytest.raises(KeyError):
        plain.tokens(pictures, flipped=True)
