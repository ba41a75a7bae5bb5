"""Whether a file of conversations can be learned from: every line, and every picture and clip it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vlm.datasets.conversations import ConversationFile, Fault, Sample
from vlm.errors import BadInput
from vlm.media.open import Media

SHOWN = 12
"""Conversations of a contact sheet, spread over the file."""
Open = Callable[[str | bytes], Media]


@dataclass
class Checked:
    """What was found in one file."""

    conversations: int = 0
    """That can be learned from."""
    replies: int = 0
    pictures: int = 0
    clips: int = 0
    several: int = 0
    """Conversations of more than one picture or clip."""
    turns: int = 0
    """Conversations of more than one reply."""
    tokens: list[int] = field(default_factory=list)
    """Of each conversation, where they were counted."""
    faults: list[Fault] = field(default_factory=list)
    faulty: int = 0
    shown: list[tuple[Sample, list[Media]]] = field(default_factory=list)


def check(
    file: ConversationFile,
    open_one: Open,
    length: Callable[[Sample, list[Media]], int] | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Checked:
    """Go through a file. `length` counts the tokens of a conversation, and raises `BadInput` for one that is too long.

    What is opened is not kept, but of those to be shown.
    """
    found = Checked(faults=list(file.faults), faulty=file.faulty)
    every = max(1, len(file) // SHOWN)
    for number, sample in enumerate(file):
        advance(number)
        try:
            media = [open_one(source) for source in sample.media]
            if length is not None:
                found.tokens.append(length(sample, media))
        except BadInput as error:
            found.faulty += 1
            found.faults.append(Fault(int(sample.where.rpartition(":")[2]), str(error)))
            continue
        found.conversations += 1
        found.replies += len(sample.learned)
        found.pictures += sum(not item.is_clip for item in media)
        found.clips += sum(item.is_clip for item in media)
        found.several += len(media) > 1
        found.turns += len(sample.learned) > 1
        if number % every == 0 and len(found.shown) < SHOWN:
            found.shown.append((sample, media))
    found.faults.sort(key=lambda fault: fault.line)
    return found
