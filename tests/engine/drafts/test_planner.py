"""Who guesses, and in how many rows, follows from seconds and acceptance alone."""

from __future__ import annotations

import pytest

from vlm.engine.drafts.planner import (
    AGAIN,
    LATELY,
    TRIES,
    Known,
    Mean,
    Plan,
    Planner,
    Seconds,
    best,
    right,
    tokens_a_second,
)

SIZES = (1, 2, 4, 6, 8)


def flat(rows: int) -> float:
    return 1.0


def linear(rows: int) -> float:
    return float(rows)


def test_right_guesses_are_those_up_to_the_first_wrong_one() -> None:
    assert right(0, 0.5) == 0
    assert right(3, 0.5) == pytest.approx(0.875)
    assert right(4, 1.0) == 4
    assert right(4, 0.0) == 0


def test_tokens_a_second_by_hand() -> None:
    known = Known("draft", 4, acceptance=0.5, seconds=0.25)
    # Two replies and five rows for guesses: three of one, two of the other, in three rounds.
    assert tokens_a_second(2, 7, 2, flat, known) == pytest.approx((2 + 0.875 + 0.75) / (1 + 3 * 0.25))
    # More rows than guesses that a reply may have.
    assert tokens_a_second(1, 8, 1, flat, known) == pytest.approx((1 + 0.9375) / 2)
    # Found for half of the replies: else the step is the least one.
    looked = Known("lookup", 4, acceptance=1.0, found=0.5)
    assert tokens_a_second(1, 4, 1, linear, looked) == pytest.approx((1 + 0.5 * 3) / (0.5 * 4 + 0.5 * 1))


def test_rows_grow_as_long_as_that_pays() -> None:
    sure, unsure = Known("draft", 4, 0.9), Known("draft", 4, 0.1)
    assert best(1, [1, 2, 4, 6], flat, [sure]) == Plan("draft", 6)
    assert best(1, [1, 2, 4, 6], linear, [sure]) == Plan("draft", 1)  # a guess costs as much as a step
    half = {1: 1.0, 2: 1.1, 4: 1.3, 6: 2.5}
    assert best(1, list(half), half.__getitem__, [sure]) == Plan("draft", 4)
    assert best(1, list(half), half.__getitem__, [unsure]).rows <= 2


def test_a_drafter_that_costs_more_than_it_brings_is_not_asked() -> None:
    looked = Known("lookup", 4, 0.3, found=0.1)
    slow, quick = Known("draft", 4, 0.8, seconds=5.0), Known("draft", 4, 0.8, seconds=0.05)
    assert best(1, [4], flat, [looked, slow]) == Plan("lookup", 4)
    assert best(1, [4], flat, [looked, quick]) == Plan("draft", 4)
    assert best(1, [4], flat, [slow]) == Plan("", 4)
    assert best(1, [4], flat, []) == Plan("", 4)


def test_what_costs_nothing_is_asked_where_nothing_is_gained() -> None:
    assert best(4, [4, 6], linear, [Known("lookup", 4, 0.0, found=0.0)]) == Plan("lookup", 4)


def test_seconds_of_what_was_not_measured_are_those_of_fewer_rows() -> None:
    seconds = Seconds()
    assert seconds(8) == 0
    seconds.add(4, 9.0)  # the first time does not count
    assert seconds(4) == 0
    seconds.add(4, 2.0)
    seconds.add(4, 4.0)
    assert (seconds(2), seconds(4), seconds(6)) == (0, 3, 3)


def test_a_mean_is_of_what_came_lately() -> None:
    mean = Mean(1.0, 4)
    mean.add(0)
    assert mean.value == 0.8
    for _ in range(10 * LATELY):
        mean.add(0.25)
    assert mean.value == pytest.approx(0.25, abs=1e-3)


def simulated(planner: Planner, acceptance: dict[str, float], cost: dict[str, float], steps: int) -> list[Plan]:
    """One reply on a machine where a step of r rows takes 1 + r / 20, and a guess what `cost` says."""
    plans, owed = [], dict.fromkeys(acceptance, 0.0)
    for _ in range(steps):
        plans.append(plan := planner.plan(1))
        planner.step.add(plan.rows, 1 + plan.rows / 20)
        name, guesses = plan.drafter, min(4, plan.rows - 1)
        if name and guesses:
            planner.draft[name].add(1, cost[name])
            planner.asked(name, 1, 1)
            for _ in range(guesses):  # as even as can be
                owed[name] += acceptance[name]
                hit = owed[name] >= 1
                owed[name] -= hit
                planner.told(name, int(hit), not hit)
                if not hit:
                    break
    return plans


@pytest.mark.parametrize(
    ("acceptance", "cost", "wanted"),
    [
        ({"lookup": 0.1, "draft": 0.9}, {"lookup": 0.0, "draft": 0.1}, "draft"),
        ({"lookup": 0.1, "draft": 0.9}, {"lookup": 0.0, "draft": 3.0}, "lookup"),
        ({"lookup": 0.8, "draft": 0.2}, {"lookup": 0.0, "draft": 0.1}, "lookup"),
        ({"lookup": 0.1, "heads": 0.8, "draft": 0.9}, {"lookup": 0.0, "heads": 0.02, "draft": 0.6}, "heads"),
    ],
)
def test_the_one_that_pays_is_found_and_others_are_tried_again(
    acceptance: dict[str, float], cost: dict[str, float], wanted: str
) -> None:
    plans = simulated(Planner(SIZES, [(name, 4) for name in acceptance]), acceptance, cost, 4 * AGAIN)
    settled = [plan.drafter for plan in plans[AGAIN // 2 : AGAIN]]
    assert settled.count(wanted) > 0.9 * len(settled)
    tried = [plan for turn in range(1, 4) for plan in plans[turn * AGAIN : turn * AGAIN + TRIES]]
    assert {plan.drafter for plan in tried} == acceptance.keys()
    assert all(plan.rows > 1 for plan in tried)


def test_steps_have_rows_that_agree() -> None:
    planner = Planner(SIZES, [("lookup", 4)])
    assert planner._rows(1) == [1, 2, 4, 6]
    assert planner._rows(3) == [4, 6, 8]
    assert planner._rows(8) == [8]
    assert planner._rows(9) == [9]  # a step of eight and one of one
    assert Planner(SIZES, []).plan(3) == Plan("", 4)
    planner.forget("lookup")
    assert planner.plan(3) == Plan("", 4)
