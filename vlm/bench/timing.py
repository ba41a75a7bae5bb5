"""Ours against a peer, in turns on the same machine: what is published is the median of the ratios."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MEMORY_SECONDS = 300.0
"""A call whose memory is measured is given up after this."""


@dataclass(frozen=True)
class Ratio:
    """`times` is how many times faster ours is: the median over the rounds, with the least and the most."""

    what: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    times: float
    least: float
    most: float
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """A comparison that could not be made, and why."""

    what: str
    peer: str
    why: str


Result = Ratio | Missing
Say = Callable[[str], None]
Measured = TypeVar("Measured")


def alternate(
    what: str,
    peer: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    note: str = "",
    least_seconds: float = 0.0,
) -> Ratio:
    """Run both `rounds` times and for `least_seconds`, taking turns, after one round that does not count."""
    mine: list[float] = []
    other: list[float] = []
    for number in itertools.count():
        if number > rounds and sum(mine[1:]) + sum(other[1:]) >= least_seconds:
            break
        # Who begins changes, so that neither always finds the machine as the other left it.
        order = [(ours, mine), (theirs, other)][:: 1 if number % 2 else -1]
        for function, seconds in order:
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(mine[1:], other[1:], strict=True)]
    median = statistics.median
    return Ratio(what, peer, median(mine[1:]), median(other[1:]), median(ratios), min(ratios), max(ratios), note)


def in_new_process(function: Callable[[int], Measured], rounds: int) -> Measured:
    """`function(rounds)` where no earlier benchmark has left threads running or memory taken."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, rounds).result()


def peak_megabytes(function: Callable[[], object]) -> float | None:
    """How much memory a call needs beyond what is there, measured in a forked process; `None` without fork."""
    if not sys.platform.startswith("linux"):
        return None
    context = multiprocessing.get_context("fork")
    mine, other = context.Pipe(duplex=False)

    def measure() -> None:
        other.send(peak_here(function))

    process = context.Process(target=measure)
    process.start()
    process.join(MEMORY_SECONDS)
    if process.is_alive():
        process.kill()
    return mine.recv() if mine.poll() else None


def peak_here(function: Callable[[], object]) -> float | None:
    """How much memory a call needs beyond what is there, in this process; `None` where the kernel does not tell.

    For what cannot run in a fork, as OpenMP's threads do not survive it. Memory that was freed before and not given
    back hides a part.
    """
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # forget the peak
        before = _resident()
        function()
        with open("/proc/self/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None
    return max(0.0, peak / 1024 - before)


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def peak_resident() -> int | None:
    """Bytes of memory that this process held at its largest; `None` where the kernel does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    # Not getrusage: a process that another started begins there with the peak of the other.
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), None)
