"""Where a prompt is cut into the chunks it is read in.

The cuts depend on the prompt alone - not on how busy the engine is, nor on what it remembers - so that every chunk is
always computed in the same shape, and gives the same numbers cold, warm, and after it was read before. T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from vlm.errors import BadInput
from vlm.models.processor import Processor, Prompt

CHUNK = 256
"""Tokens that are read together at most: enough for large products, few enough that others need not wait long."""


@dataclass(frozen=True)
class Shown:
    """The image slots of one picture or clip."""

    number: int
    """Its place among the prompt's pictures and clips."""
    places: tuple[int, ...]
    """Of its slots in the prompt."""


def shown_in(prompt: Prompt, processor: Processor) -> list[Shown]:
    """Where each picture and clip of a prompt stands. Raises `BadInput` where slots and visual tokens differ."""
    slots = (processor.image_token, processor.video_token)
    places = [place for place, token in enumerate(prompt.ids) if token in slots]
    counts = [sum(item.tokens for item in processor.media_tokens(layout)) for layout in prompt.layouts]
    if sum(counts) != len(places):
        raise BadInput(f"input_ids: expected {sum(counts)} image slots for {len(counts)} pictures, got {len(places)}")
    ends = list(accumulate(counts))
    spans = zip(ends, counts, strict=True)
    return [Shown(number, tuple(places[end - count : end])) for number, (end, count) in enumerate(spans)]


def chunks(tokens: int, shown: Sequence[Shown], size: int) -> list[range]:
    """Parts of at most `size` tokens, in order; one ends behind each picture, so that what comes after it may be
    another question and the picture need not be read again."""
    cuts = sorted({tokens, *(item.places[-1] + 1 for item in shown if item.places)})
    found: list[range] = []
    begin = 0
    for end in cuts:
        found += [range(at, min(at + size, end)) for at in range(begin, end, size)]
        begin = end
    return found
