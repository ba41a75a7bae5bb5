"""Run benchmarks: the heads as users call them, over a data set's split, scored by the reference's metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm import __version__
from vlm.api import Model, load
from vlm.datasets.examples import DatasetCard, Example, data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.card import TASK_TYPES, BenchmarkCard
from vlm.evaluation.folder import RunFolder
from vlm.evaluation.model_under_test import ModelUnderTest
from vlm.evaluation.results import Sample, TaskResult
from vlm.evaluation.served import ServedModel
from vlm.evaluation.task_types.base import Job
from vlm.evaluation.tasks import Prompts, Task, cards_of, tasks_of
from vlm.media.urls import is_url

Report = Callable[[str, int, int], None]
"""Told of a task's name, examples done and examples in all."""


@dataclass(frozen=True)
class Options:
    """How to run, beside what: nothing here changes a figure except `limit` and `prompts`, and by rounding `dtype`."""

    data: str | None = None
    """The folder of data sets; `$VLM_DATA` by default."""
    limit: int | None = None
    batch_size: int | None = None
    """`None` chooses one."""
    output: Path | None = None
    resume: bool = False
    prompts: Prompts = "first"
    device: str = "auto"
    dtype: str = "auto"


def evaluate(
    model: str | Model, tasks: Sequence[str], options: Options | None = None, report: Report | None = None
) -> list[TaskResult]:
    """The results of each benchmark (and of each of its prompts, if all are wanted), in order.

    `model` is a name or a path as `vlm.load` takes, or the URL of a server of the retrieval API; `tasks` are cards,
    paths of cards, or groups. With `options.output` the folder gets what `vlm.evaluation.results` describes, and
    every answer is kept there as soon as it is given: a run that was cut off goes on with
    `resume=True` and leaves the same bytes. All cards and data are checked before the model is loaded. Raises
    `BadInput`.
    """
    options = options or Options()
    # A data set that comes in a wheel needs no folder; one that needs a folder says so.
    data = data_folder(options.data) if options.data or os.environ.get("VLM_DATA") else None
    work = [_prepare(card, data, options.limit) for card in cards_of(tasks)]
    folder = _folder(options, [task.name for item in work for task in tasks_of(item.card, options.prompts)])
    loaded = _loaded(model, options)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        cache = RequestCache((options.output or Path(scratch)) / "requests.sqlite")
        try:
            tested = ModelUnderTest(loaded, cache, options.batch_size)
            if folder is not None:
                folder.begin(loaded.name, tested.weights, __version__, data)
            for item in work:
                for task in tasks_of(item.card, options.prompts):
                    result, samples = _run(item, task, tested, data, options.limit, report)
                    if folder is not None:
                        folder.keep(result, samples)
                    results.append(result)
        finally:
            cache.close()
    return results


def _loaded(model: str | Model, options: Options) -> Model:
    if not isinstance(model, str):
        return model
    placed = {key: value for key in ("device", "dtype") if (value := getattr(options, key)) != "auto"}
    return ServedModel(model) if is_url(model) else load(model, **placed)


def _folder(options: Options, names: list[str]) -> RunFolder | None:
    if options.output is not None:
        return RunFolder(options.output, options.resume, names)
    if options.resume:
        raise BadInput("--resume: expected --output, the folder of the run to go on with")
    return None


@dataclass(frozen=True)
class _Work:
    card: BenchmarkCard
    dataset: DatasetCard
    examples: list[Example]


def _prepare(card: BenchmarkCard, data: Path | None, limit: int | None) -> _Work:
    dataset = load_dataset(card.dataset)
    examples = dataset.read(data, card.split, limit)
    if not examples:
        raise BadInput(f"benchmark {card.name}: no examples in split {card.split!r}, limit {limit}")
    if card.category is not None and not any(card.category in example.meta for example in examples):
        keys = sorted({key for example in examples for key in example.meta})
        raise BadInput(
            f"benchmark {card.name}: category: no example has the key {card.category!r}; "
            f"expected one of {', '.join(keys) or 'none, as they have no meta'}"
        )
    return _Work(card, dataset, examples)


def _run(
    work: _Work, task: Task, tested: ModelUnderTest, data: Path | None, limit: int | None, report: Report | None
) -> tuple[TaskResult, list[Sample]]:
    def progress(done: int) -> None:
        if report is not None:
            report(task.name, done, len(work.examples))

    card = work.card
    job = Job(
        tested.with_sampling(card.sampling), card, work.examples, data, progress, task.prompt, work.dataset.classes
    )
    outcome = TASK_TYPES[card.kind](job)
    notes = outcome.notes
    if card.category is not None and not outcome.categories:
        notes = (*notes, f"no figures by {card.category}: it is empty in all examples")
    result = TaskResult(
        task=task.name,
        model=tested.model.name,
        weights=tested.weights,
        card=card,
        prompt=task.prompt or "",
        prompt_number=task.number,
        settings={"limit": limit, "max_tokens": card.max_tokens, "examples": len(work.examples)},
        main=outcome.main,
        figures=outcome.figures,
        categories=outcome.categories,
        notes=notes,
    )
    return result, outcome.samples
