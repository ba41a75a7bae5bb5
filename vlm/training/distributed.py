"""Several processes that train one stage: each has all weights and a share of the batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch import distributed as dist
from torch import nn


def join() -> None:
    """Meet the other processes that torchrun has started, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        # The others wait while the first computes features, which may take long.
        dist.init_process_group("gloo", timeout=timedelta(days=1))


def place() -> tuple[int, int]:
    """This process's rank and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does it before the others, who find what it kept."""
    rank, processes = place()
    if rank > 0:
        dist.barrier()
    yield
    if rank == 0 and processes > 1:
        dist.barrier()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over processes, in place."""
    _, processes = place()
    if processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes
