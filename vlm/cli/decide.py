"""`vlm decide`: typed questions about pictures, clips and texts, answered by probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import AsJson, Device, Dtype, Frames, ModelName, Offline, Sampling, Temperatures
from vlm.cli.output import emit, table
from vlm.cli.session import expand, lazy_model, map_media, sampling_of
from vlm.cli.told import Told
from vlm.errors import BadInput

if TYPE_CHECKING:
    from vlm.heads.decisions import Decision, Question

Many = list[str] | None


def decide(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Pictures, videos, URLs, or folders of them.")
    ] = None,
    text: Annotated[Many, typer.Option("--text", metavar="TEXT", help="A text; may be repeated.")] = None,
    yes_no: Annotated[Many, typer.Option("--yes-no", metavar="QUESTION", help="Yes or no; may be repeated.")] = None,
    choice: Annotated[
        Many, typer.Option("--choice", metavar="QUESTION|A|B...", help="One of several; may be repeated.")
    ] = None,
    score: Annotated[
        Many, typer.Option("--score", metavar="QUESTION|LOW|...|HIGH", help="A level of a scale; may be repeated.")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option("--questions", metavar="FILE", help="Named questions, as JSON in transformers' shape."),
    ] = None,
    temperatures: Temperatures = None,
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Answer yes or no, choose among options, and rate, with a probability for every label.

    All questions about an input share one look at it. "mass" is how much of what the model would say the labels are:
    near 0 it would have said something else.
    """
    asked = _asked(yes_no or [], choice or [], score or [], questions)
    texts = text or []
    if not paths and not texts:
        raise BadInput("nothing to decide about: give a PATH or --text TEXT")
    if texts:
        from vlm.conversation.texts import check_texts

        check_texts(texts)
    if temperatures is not None:
        from vlm.heads.decisions.temperature import read

        read(temperatures)
    load = lazy_model(model, offline, device=device, dtype=dtype)
    chosen = sampling_of(model, frames, sampling)
    told = Told()
    inputs = expand(paths or [], told)

    def work(given: list[Any]) -> list[list[Decision]]:
        return load().decide(given, asked, temperatures=temperatures)

    done = map_media(inputs, work, told, label="decisions", offline=offline, sampling=chosen)
    if texts:
        done += zip(texts, work([[{"role": "user", "content": one}] for one in texts]), strict=True)
    left_out = told.say()
    if as_json:
        rows = [{"input": item, "answers": [one.as_json() for one in answers]} for item, answers in done]
        emit({"results": rows, **left_out})
    elif done:
        columns = ["input", "question", "answer", "probabilities", "mass", "temperature"]
        table(columns, [[item, *_row(one)] for item, answers in done for one in answers])
    told.end()


def _asked(yes_no: list[str], choices: list[str], scores: list[str], file: Path | None) -> list[Question]:
    """All questions. Raises `BadInput` for one that cannot be asked, and where there is none."""
    from vlm.files import read_json
    from vlm.heads.decisions import Choice, Score, YesNo
    from vlm.heads.decisions.systemone import read_questions

    asked: list[Question] = [YesNo(one) for one in yes_no]
    asked += [Choice(text, labels) for text, labels in map(_split, choices)]
    asked += [Score(text, labels) for text, labels in map(_split, scores)]
    asked += [] if file is None else read_questions(read_json(file))
    if not asked:
        raise BadInput("nothing to decide: give --yes-no, --choice, --score or --questions")
    return asked


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    question, *labels = (part.strip() for part in text.split("|"))
    return question, tuple(labels)


def _row(one: Decision) -> list[str]:
    chances = sorted(one.probabilities.items(), key=lambda pair: -pair[1]) if one.question.kind == "choice" else (
        one.probabilities.items()
    )  # fmt: skip
    said = f"{one.score:.2f}" if one.question.kind == "score" else one.best
    listed = ", ".join(f"{label} {chance:.3f}" for label, chance in chances)
    return [
        one.question.name or one.question.text, said, listed, f"{one.mass:.3g}",
        "none" if one.temperature is None else f"{one.temperature:.3g} of {one.source}",
    ]  # fmt: skip
