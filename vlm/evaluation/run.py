"""Run benchmarks: the heads as users call them, over a data set's split, scored by the reference's metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlm import __version__
from vlm.api import Model, load
from vlm.datasets.examples import DatasetCard, Example, data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput, VlmError
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.card import LEARNS, NEEDS, TASK_TYPES, BenchmarkCard
from vlm.evaluation.endpoint.client import EndpointGone, EndpointOptions, checked_address
from vlm.evaluation.endpoint.model import CAN as CHAT_CAN
from vlm.evaluation.endpoint.model import EndpointModel, is_chat_endpoint
from vlm.evaluation.folder import RunFolder
from vlm.evaluation.model_under_test import ModelUnderTest
from vlm.evaluation.predicted_model import PredictedModel
from vlm.evaluation.predictions import Predictions
from vlm.evaluation.results import Sample, TaskResult
from vlm.evaluation.served import CAN as SERVER_CAN
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
    model_name: str | None = None
    """Of a chat endpoint that has several models: the one to ask."""
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    cache: Path | None = None
    """A folder of answers that all runs share; by default each keeps its own in `output`."""


def evaluate(
    model: str | Model | Predictions, tasks: Sequence[str], options: Options | None = None,
    report: Report | None = None,
) -> list[TaskResult]:  # fmt: skip
    """The results of each benchmark (and of each of its prompts, if all are wanted), in order.

    `model` is a name or a path as `vlm.load` takes, the URL of a server of the retrieval API, or that of an
    OpenAI-compatible chat endpoint (it ends in `/v1`, or `options.model_name` is given), or predictions that are read
    from a file; `tasks` are cards, paths of cards, or groups. With `options.output` the folder gets what
    `vlm.evaluation.results` describes, and every answer is kept there as soon as it is given: a run that was cut off
    goes on with `resume=True` and leaves the same bytes. All cards and data are checked, and whether the model can do
    what they ask, before anything runs. A task that fails does not stop those after it, unless the model has stopped
    answering; its error is raised in the end. Raises `BadInput`.
    """
    options = options or Options()
    # A data set that comes in a wheel needs no folder; one that needs a folder says so.
    data = data_folder(options.data) if options.data or os.environ.get("VLM_DATA") else None
    cards = cards_of(tasks)
    if isinstance(model, Predictions):
        model.check(cards)
    check_kinds(cards, str(model), _known(model, options))
    work = [_prepare(card, data, options.limit, isinstance(model, Predictions)) for card in cards]
    folder = _folder(options, [task.name for item in work for task in tasks_of(item.card, options.prompts)])
    if isinstance(model, Predictions):
        return _run_all(work, PredictedModel(model), folder, data, options, report)
    loaded = _loaded(model, options)
    check_kinds(cards, loaded.name, loaded.can or None)  # one of the user's own class may say nothing
    with tempfile.TemporaryDirectory() as scratch:
        shared = options.cache is not None
        cache = RequestCache((options.cache or options.output or Path(scratch)) / "requests.sqlite")
        try:
            return _run_all(
                work, ModelUnderTest(loaded, cache, options.batch_size, shared), folder, data, options, report
            )
        finally:
            cache.close()
            if isinstance(loaded, EndpointModel):
                loaded.endpoint.close()


def _run_all(
    work: Sequence[_Work], tested: ModelUnderTest, folder: RunFolder | None, data: Path | None, options: Options,
    report: Report | None,
) -> list[TaskResult]:  # fmt: skip
    results: list[TaskResult] = []
    failed: dict[str, VlmError] = {}
    if folder is not None:
        folder.begin(tested.name, tested.weights, __version__, data, tested.address)
    for item, task in [(one, task) for one in work for task in tasks_of(one.card, options.prompts)]:
        try:
            result, samples = _run(item, task, tested, data, options, report)
        except VlmError as error:
            failed[task.name] = error
            if isinstance(error, EndpointGone):
                break
            continue
        if folder is not None:
            folder.keep(result, samples)
        results.append(result)
    if failed:
        raise _failure(failed)
    return results


def check_kinds(cards: Sequence[BenchmarkCard], model: str, can: frozenset[str] | None) -> None:
    """Raise `BadInput` naming every benchmark that a model which `can` do this cannot be asked; `None` is unknown."""
    wrong = [card for card in cards if can is not None and NEEDS.get(card.kind, frozenset()) - can]
    if wrong:
        kinds = ", ".join(dict.fromkeys(card.kind for card in wrong))
        able = sorted(kind for kind, needs in NEEDS.items() if can is not None and needs <= can)
        lacks = ", ".join(sorted(set().union(*(NEEDS[card.kind] for card in wrong)) - (can or frozenset())))
        raise BadInput(
            f"model {model}: cannot be measured on {', '.join(card.name for card in wrong)} (kind {kinds}), "
            f"which wants one that {lacks}; expected benchmarks of kind {', '.join(able) or 'none'}"
        )


def _known(model: str | Model | Predictions, options: Options) -> frozenset[str] | None:
    """What a model can do, where that is known before it is loaded."""
    if not isinstance(model, str) or not is_url(model):
        return None
    checked_address(model, options.endpoint.key_variable)
    return CHAT_CAN if is_chat_endpoint(model, options.model_name) else SERVER_CAN


def _loaded(model: str | Model, options: Options) -> Model:
    if not isinstance(model, str):
        return model
    if is_url(model):
        if is_chat_endpoint(model, options.model_name):
            return EndpointModel.at(model, options.model_name, options.endpoint)
        return ServedModel(model)
    if options.model_name is not None:
        raise BadInput(f"--model-name {options.model_name}: expected an endpoint's address as --model, got {model}")
    placed = {key: value for key in ("device", "dtype") if (value := getattr(options, key)) != "auto"}
    return load(model, **placed)


def _failure(failed: Mapping[str, VlmError]) -> VlmError:
    """The one error, or one that says them all."""
    (_, first), *more = failed.items()
    if not more:
        return first
    said = "; ".join(f"{name}: {error}" for name, error in failed.items())
    return (BadInput if isinstance(first, BadInput) else VlmError)(f"{len(failed)} tasks failed: {said}")


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
    ids: frozenset[str]
    """Of the whole split, where they are known."""
    train: list[Example] = field(default_factory=list)


def _prepare(card: BenchmarkCard, data: Path | None, limit: int | None, whole: bool = False) -> _Work:
    """`whole` reads all ids of the split, though the examples be fewer."""
    dataset = load_dataset(card.dataset)
    examples = dataset.read(data, card.split, None if whole else limit)
    ids = frozenset(example.id for example in examples)
    examples = examples[:limit]
    if not examples:
        raise BadInput(f"benchmark {card.name}: no examples in split {card.split!r}, limit {limit}")
    if card.category is not None and not any(card.category in example.meta for example in examples):
        keys = sorted({key for example in examples for key in example.meta})
        raise BadInput(
            f"benchmark {card.name}: category: no example has the key {card.category!r}; "
            f"expected one of {', '.join(keys) or 'none, as they have no meta'}"
        )
    train = dataset.read(data, card.train_split) if card.kind in LEARNS else []
    return _Work(card, dataset, examples, ids, train)


def _run(
    work: _Work, task: Task, tested: ModelUnderTest, data: Path | None, options: Options, report: Report | None
) -> tuple[TaskResult, list[Sample]]:
    def progress(done: int) -> None:
        if report is not None:
            report(task.name, done, len(work.examples))

    card = work.card
    asked = tested.for_task(card)
    job = Job(asked, card, work.examples, data, progress, task.prompt, work.dataset.classes, work.train)
    outcome = TASK_TYPES[card.kind](job)
    usage = None if asked.usage is None else asked.usage.priced(options.endpoint.prices)
    warnings = asked.notes(work.ids)
    notes = (*outcome.notes, *warnings)
    if card.category is not None and not outcome.categories:
        notes = (*notes, f"no figures by {card.category}: it is empty in all examples")
    result = TaskResult(
        task=task.name,
        model=tested.name,
        weights=tested.weights,
        card=card,
        prompt=task.prompt or "",
        prompt_number=task.number,
        settings={"limit": options.limit, "max_tokens": card.max_tokens, "examples": len(work.examples)},
        main=outcome.main,
        figures=outcome.figures,
        categories=outcome.categories,
        notes=notes,
        warnings=warnings,
        usage=usage,
    )
    return result, outcome.samples
