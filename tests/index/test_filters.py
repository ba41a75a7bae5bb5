"""Filters: what they mean, and that a stranger's cannot do harm."""

from __future__ import annotations

import pytest

from vlm.errors import BadInput
from vlm.index.filters import MAX_TERMS, matches

ENTRY = {
    "year": 2021,
    "score": 0.5,
    "tag": "cat",
    "draft": False,
    "note": None,
    "tags": ["a", "b"],
    "camera": {"maker": "Nikon", "lens": {"mm": 50}},
    "numbers": [0, 5],
    "empty": [],
    "exif.iso": 200,
    "exif": {"gps.lat": 1.5, "iso": 100},
    "boxes": [{"of": "cat", "at": [1, 2]}, {"of": "dog"}, 7],
}


@pytest.mark.parametrize(
    "where",
    [
        {},
        None,
        {"year": 2021},
        {"year": 2021.0},
        {"year": 2021, "tag": "cat"},
        {"note": None},
        {"draft": False},
        {"camera.maker": "Nikon"},
        {"camera.lens.mm": {"gte": 50, "lt": 51}},
        {"tag": {"in": ["dog", "cat"]}},
        {"tag": {"gt": "c", "lte": "cat"}},
        {"score": {"gt": 0}},
        {"year": {"ne": 2020}},
        {"nobody": {"ne": 1}},
        {"nobody": {"exists": False}},
        {"note": {"exists": True}},
        {"tags": {"exists": True}},
        {"camera": {"exists": True}},
        {"or": [{"year": 1}, {"tag": "cat"}]},
        {"not": {"year": 1}},
        {"not": {"or": [{"year": 1}, {"draft": True}]}, "tag": "cat"},
        {"tags": "a"},
        {"tags": {"in": ["a", "x"]}},
        {"tags": {"gte": "b"}},
        {"tags": {"ne": "c"}},
        {"numbers": {"gt": 4, "lt": 6}},
        {"empty": {"exists": True}},
        {"empty": {"ne": None}},
        {"exif.iso": 100},
        {"exif.gps.lat": {"gt": 1}},
        {"boxes.of": "dog"},
        {"boxes.at": 2},
        {"boxes.of": {"ne": "bird", "in": ["cat"]}},
    ],
)
def test_fits(where: dict | None) -> None:
    assert matches(where, ENTRY)


@pytest.mark.parametrize(
    "where",
    [
        {"year": 2020},
        {"year": "2021"},
        {"year": 2021, "tag": "dog"},
        {"draft": 0},
        {"score": True},
        {"nobody": None},
        {"nobody.inside": 1},
        {"year.inside": 1},
        {"tags": "c"},
        {"tags": {"ne": "a"}},
        {"tags": {"in": ["a"], "ne": "b"}},
        {"numbers": {"gt": 0, "lt": 5}},
        {"empty": None},
        {"exif.iso": 200.5},
        {"boxes.of": "bird"},
        {"boxes.none": {"exists": True}},
        {"tag": {"in": []}},
        {"draft": {"in": [0]}},
        {"tag": {"gt": 1}},
        {"draft": {"gte": 0}},
        {"nobody": {"lt": 5}},
        {"note": {"lt": 5}},
        {"year": {"gte": 2000, "lt": 2021}},
        {"year": {"exists": False}},
        {"not": {}},
        {"or": [{"year": 1}, {"tag": "dog"}]},
    ],
)
def test_does_not_fit(where: dict) -> None:
    assert not matches(where, ENTRY)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([], "filter: expected an object, got a list"),
        ("year = 2021", "filter: expected an object, got a text"),
        ({"year": {"is": 1}}, "expected one of in, ne, gt, gte, lt, lte, exists, got 'is'"),
        ({"year": {}}, "empty object"),
        ({"year": [1]}, "got a list"),
        ({"year": {"in": 1}}, "filter.year.in: expected a list of values, got a number"),
        ({"year": {"in": [[1]]}}, "got a list"),
        ({"year": {"gt": None}}, "expected a number or a text, got null"),
        ({"year": {"gt": True}}, "expected a number or a text, got true or false"),
        ({"year": {"exists": 1}}, "expected true or false, got a number"),
        ({"or": []}, "filter.or: expected a list of filters"),
        ({"or": {"a": 1}}, "expected a list of filters, got an object"),
        ({"not": [1]}, "filter.not: expected an object, got a list"),
        ({"": 1}, "keys of text"),
        ({".".join("a" * 99): 1}, "at most 16 objects"),
        ({"year": {"in": list(range(MAX_TERMS + 1))}}, "keys and values"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(where: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        matches(where, ENTRY)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_depth_is_bounded() -> None:
    where: dict = {"year": 2021}
    for _ in range(8):
        where = {"not": where}
    assert matches(where, ENTRY)
    for _ in range(5000):
        where = {"not": where}
    with pytest.raises(BadInput, match="at most 8 deep"):
        matches(where, ENTRY)
