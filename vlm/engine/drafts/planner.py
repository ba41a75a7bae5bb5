"""Who guesses in the next step, and in how many rows: what gives most tokens a second by what was measured so far.

Only seconds depend on it, and no reply. What was not measured yet is taken for good, so that it is tried; what did not
pay is tried again from time to time, as texts and machines change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from vlm.language.steps import tiles

LATELY = 64
"""Guesses, and steps, that a mean is about."""
TRUST = 4
"""Right guesses that a drafter is credited with at the start."""
AGAIN, TRIES = 512, 8
"""Of so many steps so many are a trial of one drafter."""


@dataclass(frozen=True)
class Known:
    """What is known of a drafter."""

    name: str
    most: int
    """Guesses of a reply."""
    acceptance: float
    """Share of its guesses that are right, of those whose predecessors are."""
    found: float = 1.0
    """Share of replies for which it has a guess at all."""
    seconds: float = 0.0
    """Of guessing one token of every reply."""


@dataclass(frozen=True)
class Plan:
    """Of one step."""

    drafter: str
    """None where it is empty."""
    rows: int
    """Of the step; those beyond its replies are for guesses."""


def right(guesses: int, acceptance: float) -> float:
    """How many of so many guesses of one reply are right on average: up to the first wrong one (arXiv:2211.17192,
    equation 1, less the token that comes without a guess)."""
    return sum(acceptance**place for place in range(1, guesses + 1))


def tokens_a_second(replies: int, rows: int, filler: int, step: Callable[[int], float], known: Known) -> float:
    """Of a step of `rows` in which a drafter guesses; `step` gives the seconds of one. Where nothing is found, `filler`
    rows are enough: those of the least step for these replies."""
    each, more = divmod(min(rows - replies, replies * known.most), replies)
    gain = (replies - more) * right(each, known.acceptance) + more * right(each + 1, known.acceptance)
    seconds = known.found * step(rows) + (1 - known.found) * step(filler)
    seconds += known.seconds * (each + (more > 0))
    return (replies + known.found * gain) / seconds if seconds > 0 else float("inf")


def best(replies: int, rows: Sequence[int], step: Callable[[int], float], known: Sequence[Known]) -> Plan:
    """The plan of most tokens a second for so many replies. `rows` are those that a step may have, ascending, the first
    for replies and filler alone; of equal plans the first is taken, of the first drafter."""
    plain, plan = replies / step(rows[0]) if step(rows[0]) > 0 else 0.0, Plan("", rows[0])
    for one in known:
        for count in rows:
            speed = tokens_a_second(replies, count, rows[0], step, one)
            if speed > plain or (not plan.drafter and speed == plain):
                plain, plan = speed, Plan(one.name, count)
    return plan


class Mean:
    """Of what came lately: an early value counts for less with each that comes."""

    def __init__(self, value: float = 0.0, count: int = 0):
        self.value, self.count = value, count

    def add(self, value: float) -> None:
        self.count = min(self.count + 1, LATELY)
        self.value += (value - self.value) / self.count


class Seconds:
    """By number of rows. What was not measured costs what fewer rows do, or nothing where there are none; the first
    time of each, which is slow, does not count."""

    def __init__(self) -> None:
        self._means: dict[int, Mean | None] = {}

    def add(self, rows: int, seconds: float) -> None:
        if rows not in self._means:
            self._means[rows] = None
            return
        mean = self._means[rows] or Mean()
        mean.add(seconds)
        self._means[rows] = mean

    def __call__(self, rows: int) -> float:
        known = [number for number, mean in self._means.items() if mean is not None and number <= rows]
        return 0.0 if not known else self._means[max(known)].value  # type: ignore[union-attr]


class Planner:
    """Measures, and plans by it."""

    def __init__(self, sizes: tuple[int, ...], drafters: Sequence[tuple[str, int]]):
        """`sizes` of steps that agree; `drafters` by name with their guesses of a reply at most, the cheapest first."""
        self._sizes, self._drafters = sizes, dict(drafters)
        self._steps = 0
        self.step = Seconds()
        self.draft: dict[str, Seconds] = defaultdict(Seconds)
        self._acceptance = {name: Mean(1.0, TRUST) for name in self._drafters}
        self._found = {name: Mean(1.0, TRUST) for name in self._drafters}
        self._rows = cache(self._possible)

    def plan(self, replies: int) -> Plan:
        """Of the next step."""
        rows = self._rows(replies)
        if not self._drafters or not replies:
            return Plan("", rows[0])
        known = [self._known(name, replies) for name in self._drafters]
        turn, place = divmod(self._steps, AGAIN)
        self._steps += 1
        if turn and place < TRIES and (guessing := [count for count in rows if count > replies]):
            one = known[turn % len(known)]
            count = max(guessing, key=lambda count: tokens_a_second(replies, count, rows[0], self.step, one))
            return Plan(one.name, count)
        return best(replies, rows, self.step, known)

    def asked(self, name: str, replies: int, found: int) -> None:
        """For so many replies a drafter was asked, and guessed for some of them."""
        for number in range(replies):
            self._found[name].add(number < found)

    def told(self, name: str, right: int, wrong: bool) -> None:
        """So many guesses of a reply were right, and perhaps the next was wrong."""
        for _ in range(right):
            self._acceptance[name].add(1)
        if wrong:
            self._acceptance[name].add(0)

    def forget(self, name: str) -> None:
        """It guesses no more."""
        del self._drafters[name]
        self._rows = cache(self._possible)

    def _known(self, name: str, replies: int) -> Known:
        seconds = self.draft[name](replies) if name in self.draft else 0.0
        return Known(name, self._drafters[name], self._acceptance[name].value, self._found[name].value, seconds)

    def _possible(self, replies: int) -> list[int]:
        """Numbers of rows that a step of so many replies may have: one tile's, where they need no more."""
        least, most = total(replies, self._sizes), replies * (1 + max(self._drafters.values(), default=0))
        largest = total(min(most, self._sizes[-1]), self._sizes)
        return [least, *(size for size in self._sizes if least < size <= largest)]


def total(rows: int, sizes: Sequence[int]) -> int:
    """Rows of a step for so many, filler among them."""
    return sum(size for _, size in tiles(range(rows), sizes))
