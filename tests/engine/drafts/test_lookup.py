"""Guesses are what followed the longest earlier match, found without reading the sequence again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.engine.drafts.lookup import MOST, Seen


def draft(ids: list[int], most: int, least_match: int = 2) -> list[int]:
    return Seen(ids, least_match, max(MOST, least_match)).draft(most)


IDS = st.lists(st.integers(0, 3), max_size=40)


def searched(ids: Sequence[int], most: int, least: int) -> list[int]:
    """By reading all of it, from the longest match to the shortest and from the latest to the first."""
    for length in range(max(MOST, least), least - 1, -1):
        for end in range(len(ids) - 1, length - 1, -1):
            if list(ids[end - length : end]) == list(ids[len(ids) - length :]):
                return list(ids[end : end + most])
    return []


@given(IDS, st.integers(0, 6), st.integers(1, 6))
def test_a_draft_is_what_a_search_finds(ids: list[int], most: int, least: int) -> None:
    assert draft(ids, most, least) == searched(ids, most, least)


@given(IDS, st.lists(IDS, max_size=5), st.integers(1, 6))
def test_tokens_that_come_later_are_found_as_if_they_had_been_there(
    prompt: list[int], parts: list[list[int]], most: int
) -> None:
    drafts = Seen(prompt)
    said = list(prompt)
    for part in parts:
        drafts.extend(part)
        said += part
        assert drafts.draft(most) == draft(said, most) == searched(said, most, 2)


def test_the_longest_match_counts_and_of_those_the_latest() -> None:
    assert draft([1, 2, 3, 50, 9, 2, 3, 60, 1, 2, 3], 2) == [50, 9]
    assert draft([1, 2, 3, 50, 1, 2, 3, 60, 1, 2, 3], 2) == [60, 1]


def test_a_draft_may_run_into_what_was_matched() -> None:
    assert draft([7, 7, 7], 5) == [7]
    assert draft([1, 2, 1, 2], 5) == [1, 2]


def test_without_a_match_there_is_no_draft() -> None:
    assert draft([], 4) == draft([1], 4) == draft([1, 2, 3, 4], 4) == []
    assert draft([1, 5, 6, 1], 4) == []
    assert draft([1, 5, 6, 1], 4, least_match=1) == [5, 6, 1]
    assert draft([1, 2, 1, 2], 0) == []


def test_matches_of_no_token_are_refused() -> None:
    with pytest.raises(ValueError, match="expected matches of at least one token, got 0 to 4"):
        Seen(least=0)
