"""The folder of a run while it is being made: what may be written where, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlm.errors import BadInput
from vlm.evaluation.results import (
    RunInfo,
    Sample,
    TaskResult,
    read_info,
    read_result,
    read_samples,
    write_info,
    write_task,
)
from vlm.evaluation.usage import Usage


class RunFolder:
    """The folder given as `--output`. After a kill at any moment, a task that has `results.json` is whole."""

    def __init__(self, path: Path, resume: bool, tasks: Sequence[str]):
        """`tasks` are to be made, or made anew: their files there may be damaged, those of others may not.

        Raises `BadInput` before anything is computed: not a folder, another run's without `resume`, or damaged.
        """
        self.path, self._tasks = path, tasks
        self._before: RunInfo | None = None
        self._used: dict[str, Usage] = {}
        if path.exists() and not path.is_dir():
            raise BadInput(f"{path}: not a folder")
        if not resume and path.is_dir() and any(path.iterdir()):
            raise BadInput(f"{path}: not empty; go on with it (--resume) or choose another --output")
        if not (path / "run.json").is_file():
            return
        self._before = read_info(path)
        for name in self._before.tasks:
            if name not in tasks and (path / name / "results.json").is_file():
                self._count(read_result(path / name))
                for _ in read_samples(path / name):
                    pass

    def begin(self, model: str, weights: str, version: str, data: Path | None, endpoint: str = "") -> None:
        """Write `run.json`, which names the tasks to come after those of before.

        Raises `BadInput` where the folder holds a run of other weights.
        """
        before = self._before.tasks if self._before is not None else ()
        if self._before is not None and self._before.weights != weights:
            raise BadInput(
                f"{self.path}: holds a run of {self._before.model} with other weights; choose another --output"
            )
        tasks = tuple(dict.fromkeys((*before, *self._tasks)))
        self._info = RunInfo(
            model=model, weights=weights, version=version, data=str(data or ""), tasks=tasks, endpoint=endpoint
        )
        self._write_info()

    def keep(self, result: TaskResult, samples: Sequence[Sample]) -> None:
        """Keep a finished task, and what the run has read and written so far."""
        write_task(self.path / result.task, result, samples)
        self._count(result)
        if self._used:
            self._write_info()

    def _count(self, result: TaskResult) -> None:
        if result.usage is not None:
            self._used[result.task] = result.usage

    def _write_info(self) -> None:
        total = sum(self._used.values(), Usage()) if self._used else None
        write_info(self.path, self._info.model_copy(update={"usage": total}))
