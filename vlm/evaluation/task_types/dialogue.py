"""Conversations: questions about one picture or clip in turn, each after the model's own replies to those before."""

from __future__ import annotations

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.figures import by_category, figure, mean_figure
from vlm.evaluation.requests import Request, Turn
from vlm.evaluation.results import Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.evaluation.task_types.judging import judged_outcome
from vlm.metrics.protocols import PROTOCOLS
from vlm.metrics.statistics import interval_of_mean


def run(job: Job) -> Outcome:
    """Accuracy of all turns in percent by the card's protocol, and the share of conversations with all turns right.

    A sample is a turn, `ID#2` the second of an example's; without a category of the card's it is the turn's number.
    """
    for example in job.examples:
        if not example.turns:
            raise BadInput(f"benchmark {job.card.name}: example {example.id} has no turns; expected one or more")
    said = _predicted(job) if job.model.predicted is not None else _in_rounds(job)
    samples, questions, whole = [], [], []
    for example, replies in zip(job.examples, said, strict=True):
        scores = []
        for number, (turn, reply) in enumerate(zip(example.turns, replies, strict=True), 1):
            scores.append(PROTOCOLS[job.card.protocol](reply.strip(), turn.answers))
            questions.append(turn.question)
            samples.append(
                Sample(
                    id=f"{example.id}#{number}",
                    inputs=job.inputs(example),
                    prompt=_prompt(job, turn.question),
                    output=reply,
                    prediction=reply.strip(),
                    references=turn.answers,
                    scores={"accuracy": scores[-1]},
                    cluster=job.cluster(example),
                    category=job.category(example) if job.card.category is not None else f"turn {number}",
                )
            )
        whole.append(float(min(scores) == 1))
    figures = {
        "accuracy": mean_figure(samples, "accuracy", scale=100.0),
        "conversations": figure(interval_of_mean(whole), len(whole), scale=100.0),
    }
    if job.card.judge is not None and job.judge is not None:
        return judged_outcome(job, samples, questions, "accuracy", figures)
    notes = ("not judged: no model to judge was given (--judge)",) if job.card.judge is not None else ()
    return Outcome(samples, "accuracy", figures, by_category(samples, {"accuracy": 100.0}), notes)


def _in_rounds(job: Job) -> list[list[str]]:
    """The first turns of all, then the second: many are asked at once."""
    said: list[list[str]] = [[] for _ in job.examples]
    for number in range(max(len(example.turns) for example in job.examples)):
        asked = [row for row, example in enumerate(job.examples) if number < len(example.turns)]
        replies = job.model.answers([_request(job, job.examples[row], said[row]) for row in asked])
        for row, reply in zip(asked, replies, strict=True):
            said[row].append(reply)
        job.progress(sum(len(replies) == len(e.turns) for replies, e in zip(said, job.examples, strict=True)))
    return said


def _predicted(job: Job) -> list[list[str]]:
    replies = iter(job.model.answers([Request(e, t.question, 1) for e in job.examples for t in e.turns], job.progress))
    return [[next(replies) for _ in example.turns] for example in job.examples]


def _request(job: Job, example: Example, said: list[str]) -> Request:
    turns = zip(example.turns, said, strict=False)
    before = tuple(
        Turn(example if number == 0 else None, _prompt(job, turn.question), reply)
        for number, (turn, reply) in enumerate(turns)
    )
    return job.request(example, _prompt(job, example.turns[len(said)].question), before=before)


def _prompt(job: Job, question: str) -> str:
    return job.fill(job.prompt or "{question}", question=question)
