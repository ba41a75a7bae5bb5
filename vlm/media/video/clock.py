"""Times that go on where a file's own clock starts again, and those of files that have but an order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from av.container import InputContainer
from av.video.stream import VideoStream

GAP_SECONDS = 10.0
"""A pause after which a clock counts as another one, as FFmpeg has it (`dts_delta_threshold`)."""
_JOINED = frozenset(("mpegts", "mpeg"))
"""Formats of which several files joined end to end are one."""
ORDER_ALONE = frozenset(("avi", "asf"))
"""Formats that say one time of a packet, by which it is decoded."""


class Clock:
    """The stamps of frames in the order they are shown, going on over another recording's beginning.

    Only where the format's files may be joined end to end; elsewhere stamps stay as they are.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        tick = float(stream.time_base or 0)
        self._joined = container.format.name in _JOINED and tick > 0
        self._gap = GAP_SECONDS / tick if tick else 0.0
        self._step = round(1 / (tick * float(stream.average_rate))) if tick and stream.average_rate else 1
        self._last: int | None = None
        self._added, self._parts = 0, 1

    def began_again(self, before: int | None, dts: int | None, pts: int) -> bool:
        """Whether a packet is of another recording than the one before it, whose `dts` was `before`."""
        if not self._joined or dts is None:
            return False
        return pts < dts or (before is not None and dts < before)

    def __call__(self, stamp: int) -> int:
        at = stamp + self._added
        if self._joined and self._last is not None:
            if self._last <= at <= self._last + self._gap:
                self._step = at - self._last or self._step
            else:
                self._added += self._last + self._step - at
                self._parts += 1
        self._last = stamp + self._added
        return self._last

    @property
    def notes(self) -> tuple[str, ...]:
        said = f"{self._parts} recordings joined, each with a clock of its own: their times go on one after another"
        return (said,) if self._parts > 1 else ()


def in_order(dts: Sequence[int], delay: int) -> list[int]:
    """When frames are shown of which only the places of their packets are known: the k-th one at the k-th place.

    Where frames are shown in another order than they are decoded in, packets are written `delay` frames ahead, so that
    a pause between packets is one between frames that are shown so much later.
    """
    order = sorted(dts)
    delay = min(delay, len(order) - 1)
    if delay <= 0:
        return order
    step = round(median(after - before for before, after in pairwise(order)))
    late = [*order[delay:], *(order[-1] + step * place for place in range(1, delay + 1))]
    return [place - late[0] + order[0] for place in late]
