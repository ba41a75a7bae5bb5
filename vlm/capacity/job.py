"""An embedding job: shards in a queue, machines that take the next one, machines that fail.

S shards. A machine that fails loses its shard, which goes back into the queue, and is there again after its restart.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Machines:
    """All times in the unit of the shard's duration."""

    count: int
    failure_rate: float = 0.0
    """Of one machine while it works, per unit of time (Poisson)."""
    restart: float = 0.0
    attempt_failure: float = 0.0
    """Share of tries that end in an error, after the shard's whole time; the machine goes on."""
    sigma: float = 0.0
    """Of the logarithm of the durations; their median is the shard's."""
    slow_share: float = 0.0
    slow_times: float = 1.0


@dataclass(frozen=True)
class Run:
    done_S: NDArray[np.float64]
    """When each shard was there, in order of time."""
    tries: int
    lost: float
    """Time of machines that went into tries that came to nothing, and into restarts."""


class _Event(Enum):
    done = 0
    error = 1
    failure = 2
    back = 3


def simulate(shards: int, duration: float, machines: Machines, rng: np.random.Generator) -> Run:
    """One job, from event to event. Without failures and scatter it takes `ceil(S / machines) * duration`."""
    speed = np.where(rng.random(machines.count) < machines.slow_share, machines.slow_times, 1.0)
    queue, idle = deque(range(shards)), deque(range(machines.count))
    events: list[tuple[float, int, int, _Event]] = []  # when, which machine and shard, what
    done: list[float] = []
    tries, lost, now = 0, 0.0, 0.0
    while len(done) < shards:
        while queue and idle:
            machine, shard = idle.popleft(), queue.popleft()
            time = duration * speed[machine] * np.exp(machines.sigma * rng.standard_normal())
            until_failure = rng.exponential(1 / machines.failure_rate) if machines.failure_rate else np.inf
            event = _Event.error if rng.random() < machines.attempt_failure else _Event.done
            if until_failure < time:
                time, event = until_failure, _Event.failure
            tries += 1
            lost += 0.0 if event is _Event.done else time
            heapq.heappush(events, (now + time, machine, shard, event))
        now, machine, shard, event = heapq.heappop(events)
        if event is _Event.done:
            done.append(now)
        elif event is not _Event.back:
            queue.append(shard)
        if event is _Event.failure:
            lost += machines.restart
            heapq.heappush(events, (now + machines.restart, machine, -1, _Event.back))
        else:
            idle.append(machine)
    return Run(np.array(done), tries, lost)
