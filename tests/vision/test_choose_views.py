"""Tiling by content: what a view loses, and how a budget is shared."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from vlm.errors import BadInput
from vlm.vision import content_tiling
from vlm.vision.content_tiling import Option, TilingConfig, View, allocate, choose_views, losses
from vlm.vision.tiling import Size

SIZES = [(384 * n, 384 * n) for n in (1, 2, 3)]
VIEWS = [View(100 + 100 * n * n, (384 * n, 384 * n)) for n in (1, 2, 3)]


def flat() -> Image.Image:
    return Image.new("RGB", (1152, 1152), (90, 140, 20))


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (1152, 1152, 3), dtype=np.uint8))


def text(pixels: int, lines: int = 100) -> Image.Image:
    """Lines of text from the top of a white page."""
    page = Image.new("RGB", (1152, 1152), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(pixels)
    for top in range(10, 1140, pixels * 3 // 2)[:lines]:
        draw.text((10, top), "Sphinx of black quartz, judge my vow 0123456789 " * 4, fill="black", font=font)
    return page


def smooth() -> Image.Image:
    return Image.radial_gradient("L").resize((1152, 1152), Image.Resampling.BICUBIC).convert("RGB")


def test_a_flat_picture_loses_nothing_and_a_detailed_one_loses_less_the_larger_it_is_seen() -> None:
    assert losses(flat(), SIZES) == [0, 0, 0]
    for picture in (noise(), text(14)):
        small, middle, large = losses(picture, SIZES)
        assert small > middle > large
        assert middle > 0.1
    assert losses(smooth(), SIZES)[0] < 0.02


def test_what_is_lost_is_the_difference_to_the_picture_shrunk_and_enlarged() -> None:
    picture = text(20).resize((640, 640))
    grey = picture.convert("L")
    back = grey.resize((384, 384), Image.Resampling.BICUBIC).resize((640, 640), Image.Resampling.BICUBIC)
    squares = ((np.asarray(grey, float) - np.asarray(back, float)) / 255) ** 2
    blocks = squares.reshape(40, 16, 40, 16).mean(axis=(1, 3)).reshape(-1)
    expected = np.sort(blocks)[-32:].mean() ** 0.5  # a fiftieth of 1600
    assert losses(picture, [(384, 384)])[0] == pytest.approx(expected, abs=1e-5)
    assert losses(picture, [(640, 640), (9999, 700)]) == [0, 0]


def test_flat_pictures_get_one_tile_and_dense_ones_many() -> None:
    pictures = [flat(), noise(), text(14), text(14, lines=1), smooth()]
    assert choose_views(pictures, [VIEWS] * 5, TilingConfig(by="content")) == [0, 2, 2, 1, 0]
    assert choose_views(
        [Image.new("L", (1, 1)), Image.new("L", (3000, 1))], [VIEWS] * 2, TilingConfig(by="content")
    ) == [
        0,
        0,
    ]


def test_larger_letters_are_read_in_fewer_tiles() -> None:
    taken = [
        choose_views([text(pixels)], [VIEWS], TilingConfig(by="content", tolerance=0.15))[0] for pixels in (14, 30, 90)
    ]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] > taken[-1]


def spent(taken: list[int], views: list[list[View]]) -> int:
    return sum(ways[place].tokens for place, ways in zip(taken, views, strict=True))


def test_the_budget_goes_where_it_gains_most_and_is_never_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, views = [flat(), noise(), text(30), text(14, lines=3)], [VIEWS] * 4
    lost = {id(picture): losses(picture, SIZES) for picture in pictures}
    assert lost == {id(picture): losses(picture, SIZES) for picture in pictures}, "deterministic"

    def measured(picture: Image.Image, sizes: list[Size]) -> list[float]:  # once, not at every budget
        return [lost[id(picture)][SIZES.index(size)] for size in sizes]

    monkeypatch.setattr(content_tiling, "losses", measured)
    before = 0
    for budget in range(800, 4001, 100):
        cfg = TilingConfig(by="content", budget=budget)
        taken = choose_views(pictures, views, cfg)
        assert spent(taken, views) <= budget
        assert taken == choose_views(pictures, views, cfg), "deterministic"
        assert taken[0] == 0
        assert sum(taken) >= before or spent(taken, views) > spent([0] * 4, views)
        before = sum(taken)
    with pytest.raises(BadInput, match="expected a budget of at least 800 visual tokens for 4 pictures, got 799"):
        choose_views(pictures, views, TilingConfig(by="content", budget=799))


def options(*pairs: tuple[int, float]) -> list[Option]:
    return [Option(*pair) for pair in pairs]


def test_the_order_of_the_pictures_decides_nothing() -> None:
    rng = Random(0)
    for _ in range(200):
        kinds = [options(*((n * 10 + 10, rng.choice([0.5, 0.3, 0.2, 0.1])) for n in range(4))) for _ in range(3)]
        pictures = [rng.choice(kinds) for _ in range(5)]
        budget = rng.randrange(50, 200)
        taken = allocate(pictures, budget, 0.1)
        order = rng.sample(range(5), 5)
        assert allocate([pictures[place] for place in order], budget, 0.1) == [taken[place] for place in order]
        assert sum(ways[place].tokens for place, ways in zip(taken, pictures, strict=True)) <= budget


def test_a_budget_for_all_is_as_good_as_the_best_of_all_choices_where_gains_diminish() -> None:
    curves = [
        options((10, 0.9), (20, 0.5), (30, 0.3), (40, 0.2)),
        options((10, 0.4), (20, 0.3), (30, 0.25), (40, 0.24)),
    ]
    for budget in range(20, 81, 10):
        taken = allocate(curves, budget, 0.0)
        best = min(
            sum(ways[place].loss for ways, place in zip(curves, places, strict=True))
            for places in product(range(4), repeat=2)
            if sum(ways[place].tokens for ways, place in zip(curves, places, strict=True)) <= budget
        )
        assert sum(ways[place].loss for ways, place in zip(curves, taken, strict=True)) == pytest.approx(best)


def test_without_a_budget_the_cheapest_view_within_tolerance_is_taken() -> None:
    ways = options((40, 0.01), (10, 0.5), (20, 0.3), (30, 0.09))
    assert allocate([ways], None, 0.1) == [3]
    assert allocate([ways], None, 0.6) == [1]
    assert allocate([ways], None, 0.0) == [0]
    assert allocate([], 10, 0.1) == []


def test_a_budget_that_nothing_would_use() -> None:
    with pytest.raises(ValueError, match="expected by: content with a budget of 9 tokens"):
        TilingConfig(budget=9)
