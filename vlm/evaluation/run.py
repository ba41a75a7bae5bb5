"""Run benchmarks: the heads as users call them, over a data set's split, scored by the reference's metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vlm import __version__
from vlm.api import Model
from vlm.datasets.examples import DatasetCard, Example, data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput, VlmError
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.card import LEARNS, TASK_TYPES, BenchmarkCard
from vlm.evaluation.deciding import nothing_to_decide, with_decisions
from vlm.evaluation.endpoint.client import EndpointGone
from vlm.evaluation.endpoint.model import EndpointModel
from vlm.evaluation.folder import RunFolder
from vlm.evaluation.model_under_test import ModelUnderTest
from vlm.evaluation.models import Judges, Options, check_kinds, known_abilities, load_model
from vlm.evaluation.predicted_model import PredictedModel
from vlm.evaluation.predictions import Predictions
from vlm.evaluation.results import Sample, TaskResult
from vlm.evaluation.task_types.base import Job
from vlm.evaluation.tasks import Task, cards_of, tasks_of
from vlm.heads.decisions.temperature import read as read_temperatures

__all__ = ["Options", "evaluate"]

Report = Callable[[str, int, int], None]
"""Told of a task's name, examples done and examples in all."""


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
    if options.temperatures is not None:
        read_temperatures(options.temperatures)
    if isinstance(model, Predictions):
        model.check(cards)
    check_kinds(cards, str(model), known_abilities(model, options))
    work = [_prepare(card, data, options.limit, isinstance(model, Predictions)) for card in cards]
    folder = _folder(options, [task.name for item in work for task in tasks_of(item.card, options.prompts)])
    loaded = None if isinstance(model, Predictions) else load_model(model, options)
    if loaded is not None:
        check_kinds(cards, loaded.name, loaded.can or None)  # one of the user's own class may say nothing
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as closing:
        cache = RequestCache((options.cache or options.output or Path(scratch)) / "requests.sqlite")
        closing.callback(cache.close)
        judges = Judges(cards, options, cache)
        closing.callback(judges.close)
        if isinstance(loaded, EndpointModel):
            closing.callback(loaded.endpoint.close)
        if isinstance(model, Predictions):
            tested: ModelUnderTest = PredictedModel(model)
        else:
            assert loaded is not None
            tested = ModelUnderTest(loaded, cache, options.batch_size, options.cache is not None)
        return _run_all(work, tested, judges, folder, data, options, report)


def _run_all(
    work: Sequence[_Work], tested: ModelUnderTest, judges: Judges, folder: RunFolder | None, data: Path | None,
    options: Options, report: Report | None,
) -> list[TaskResult]:  # fmt: skip
    results: list[TaskResult] = []
    failed: dict[str, VlmError] = {}
    if folder is not None:
        folder.begin(tested.name, tested.weights, __version__, data, tested.address)
    for item, task in [(one, task) for one in work for task in tasks_of(one.card, options.prompts)]:
        try:
            result, samples = _run(item, task, tested, judges.of(item.card), data, options, report)
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
    shown: list[Example] = field(default_factory=list)


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
    return _Work(card, dataset, examples, ids, train, _shown(card, dataset, data))


def _shown(card: BenchmarkCard, dataset: DatasetCard, data: Path | None) -> list[Example]:
    """The examples that are shown before each question: one more than wanted, as one may be the question itself."""
    if card.in_context is None:
        return []
    wanted, found = card.in_context, dataset.read(data, card.in_context.split)
    if wanted.ids:
        by_id = {example.id: example for example in found}
        if missing := [name for name in wanted.ids if name not in by_id]:
            raise BadInput(f"benchmark {card.name}: in_context.ids: no {missing[0]!r} in split {wanted.split}")
        return [by_id[name] for name in wanted.ids]
    count = min(len(found), wanted.count + 1)
    return [found[row * len(found) // count] for row in range(count)]


def _run(
    work: _Work, task: Task, tested: ModelUnderTest, judge: ModelUnderTest | None, data: Path | None, options: Options,
    report: Report | None,
) -> tuple[TaskResult, list[Sample]]:  # fmt: skip
    def progress(done: int) -> None:
        if report is not None:
            report(task.name, done, len(work.examples))

    card = work.card.for_model(tested.name)
    prompt = task.prompt if not card.prompts or task.prompt is None else card.prompts[task.number - 1]
    asked = tested.for_task(card)
    job = Job(asked, card, work.examples, data, progress, prompt, work.dataset.classes, work.train, work.shown, judge)
    outcome = TASK_TYPES[card.kind](job)
    undecided = nothing_to_decide(job) if options.decide else None
    if options.decide and undecided is None:
        outcome = with_decisions(job, outcome, options.temperatures)
    usage = None if asked.usage is None else asked.usage.priced(options.endpoint.prices)
    warnings = (*asked.notes(work.ids), *([] if undecided is None else [undecided]))
    notes = (*outcome.notes, *warnings)
    if card.category is not None and not outcome.categories:
        notes = (*notes, f"no figures by {card.category}: it is empty in all examples")
    result = TaskResult(
        task=task.name,
        model=tested.name,
        weights=tested.weights,
        card=card,
        prompt=prompt or "",
        prompt_number=task.number,
        settings={"limit": options.limit, "max_tokens": card.max_tokens, "examples": len(work.examples)}
        | ({"decide": True} if options.decide else {}),
        main=outcome.main,
        figures=outcome.figures,
        categories=outcome.categories,
        notes=notes,
        warnings=warnings,
        usage=usage,
        judge_usage=None if judge is None else judge.usage,
    )
    return result, outcome.samples
