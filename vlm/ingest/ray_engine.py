"""Shards by processes of Ray on this machine; nothing else imports Ray.

What goes through Ray are the numbers of shards: each process reads its own pictures and writes its own files. A process
that dies is started again, and a shard that was done twice is the same file. Ray listens on the machine's network
addresses; whoever speaks to it needs a secret made for this run (`RAY_AUTH_MODE`, from Ray 2.52 on).
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vlm.errors import VlmError
from vlm.ingest.job import Job, Worker

START_TRIES = 3
"""Ray gives a part of its own 15 s to start, which a busy machine may exceed (ray-project/ray#65983)."""
TRIES = 3
"""Times that a shard may end the process that embeds it; Ray itself would try for ever."""


class Embedding:
    """A process's worker. What is wrong with the input comes back as a value: Ray would wrap it in a traceback."""

    def __init__(self, job: Job):
        self.worker = Worker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (shard,) = batch["shard"].tolist()
        try:
            with self._counted(shard):
                return {"items": [self.worker(shard)], "problem": [""]}
        except VlmError as error:
            return {"items": [0], "problem": [str(error)]}

    @contextmanager
    def _counted(self, shard: int) -> Iterator[None]:
        """Tries that ended the process leave a byte each."""
        tries = self.worker.folder / f".{shard:05d}.tries"
        with tries.open("ab") as file:
            file.write(b".")
        if tries.stat().st_size > TRIES:
            raise VlmError(f"{self.worker.folder}: shard {shard} ended its process {TRIES} times (out of memory?)")
        yield
        tries.unlink()


def run(
    job: Job, shards: Sequence[int], workers: int | None = None, tick: Callable[[int], None] | None = None
) -> Generator[int, None, None]:
    """Gives the items of each shard as it is done; `workers` processes, one a CPU by default. `tick` is not told of
    batches, which other processes see.

    Raises `VlmError` where Ray does not start or a process keeps dying.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of what it would write on our stderr
    if "ray" not in sys.modules:  # it looks at these once
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    import ray.data

    count = min(workers or os.cpu_count() or 1, len(shards))
    own = not ray.is_initialized()
    if own:
        _start(ray, count)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        done = rows.map_batches(
            Embedding,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=1,
        )
        for row in done.iter_rows():
            if row["problem"]:
                raise VlmError(row["problem"])
            yield int(row["items"])
    except ray.exceptions.RayError as error:
        raise VlmError(f"{job.folder}: a process of Ray failed: {_last_line(error)}") from None
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any, count: int) -> None:
    for tried in range(START_TRIES):
        try:
            with _silence():
                ray.init(
                    address="local",
                    num_cpus=count,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                )
            return
        except Exception as error:  # Ray raises plain ones
            ray.shutdown()
            if tried + 1 == START_TRIES:
                raise VlmError(f"Ray did not start: {_last_line(error)}") from None


@contextmanager
def _silence() -> Iterator[None]:
    """Ray's own code says past Python which level its log has; what fails is raised."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:300]
