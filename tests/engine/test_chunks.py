from __future__ import annotations

import pytest

from vlm.engine.chunks import Shown, chunks


@pytest.mark.parametrize(
    ("tokens", "pictures", "expected"),
    [
        (5, [], [(0, 5)]),
        (20, [], [(0, 8), (8, 16), (16, 20)]),
        (16, [], [(0, 8), (8, 16)]),
        (20, [(3, 7)], [(0, 7), (7, 15), (15, 20)]),
        (12, [(3, 12)], [(0, 8), (8, 12)]),
        (30, [(2, 12), (14, 18)], [(0, 8), (8, 12), (12, 18), (18, 26), (26, 30)]),
    ],
)
def test_cuts(tokens: int, pictures: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    shown = [Shown(number, tuple(range(*places))) for number, places in enumerate(pictures)]
    assert [(part.start, part.stop) for part in chunks(tokens, shown, 8)] == expected
    assert chunks(tokens, shown, 8)[:-1] == chunks(tokens + 1, shown, 8)[: len(expected) - 1]
