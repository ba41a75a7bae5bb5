"""What `--tasks` and `--prompts` stand for: benchmark cards by name, path or group, each with its prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vlm import assets
from vlm.errors import BadInput, unknown
from vlm.evaluation.card import EMBEDDING_TASKS, BenchmarkCard, card_faults, load_card

Prompts = Literal["first", "all"]


@dataclass(frozen=True)
class Task:
    """A benchmark with one of its prompts: what has a folder of its own in a run."""

    name: str
    card: BenchmarkCard
    number: int
    prompt: str | None
    """None where the card has none."""


def cards_of(tasks: Sequence[str]) -> list[BenchmarkCard]:
    """The cards of names, paths and groups, each once.

    Raises `BadInput` with the nearest names for an unknown one, and with all faults of all cards that were chosen.
    """
    known = {name: load_card(name) for name in assets.cards("eval")}
    groups = groups_of(known.values())
    chosen: dict[str, BenchmarkCard] = {}
    own = [task for task in tasks if task not in known and task not in groups and assets.is_path(task)]
    faults = [fault for task in dict.fromkeys(own) for fault in card_faults(task)]
    for task in tasks:
        if task in known:
            found = [known[task]]
        elif task in groups:
            found = [known[name] for name in groups[task]]
        elif assets.is_path(task):
            found = [] if faults else [load_card(task)]
        else:
            raise unknown("benchmark", task, [*known, *groups], assets.LISTING["eval"])
        for card in found:
            if chosen.setdefault(card.name, card) != card:
                raise BadInput(f"two different benchmarks are called {card.name!r}; expected a name for each")
    faults += [fault for name in chosen if name in known for fault in card_faults(name)]
    if faults:
        raise BadInput("; ".join(faults))
    return list(chosen.values())


def groups_of(cards: Iterable[BenchmarkCard]) -> dict[str, list[str]]:
    """Group -> the names of its benchmarks."""
    groups: dict[str, list[str]] = {}
    for card in cards:
        for group in card.groups:
            groups.setdefault(group, []).append(card.name)
    return groups


def tasks_of(card: BenchmarkCard, prompts: Prompts) -> list[Task]:
    """The card with its first prompt, or with each that it has."""
    # Only what is asked of a language model is asked in several wordings; a classifier's prompts are one ensemble.
    several = prompts == "all" and card.kind not in EMBEDDING_TASKS
    chosen: Sequence[str | None] = (card.prompts if several else card.prompts[:1]) or (None,)
    return [
        Task(card.name if number == 1 else f"{card.name}@{number}", card, number, prompt)
        for number, prompt in enumerate(chosen, 1)
    ]
