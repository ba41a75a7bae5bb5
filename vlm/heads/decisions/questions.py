"""Typed questions, and their answers: yes or no, one of several options, a level of a scale. C labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vlm.conversation.texts import check_text
from vlm.errors import BadInput

MOST_LABELS = 255
YES, NO = "yes", "no"


@dataclass(frozen=True)
class YesNo:
    """Whether something is so; `about` may say what "yes" and "no" stand for."""

    text: str
    name: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    kind = "yes_no"
    labels = (YES, NO)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Choice:
    """Which of several options; `about` may say more of an option."""

    text: str
    options: tuple[str, ...]
    name: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    kind = "choice"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.options


@dataclass(frozen=True)
class Score:
    """Which level of a scale, the lowest first; levels count from 0."""

    text: str
    levels: tuple[str, ...]
    name: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    kind = "score"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.levels


Question: TypeAlias = YesNo | Choice | Score


def words(question: Question) -> str:
    """What the model reads: the question, then what is said of labels, in the order of the alphabet, so that the order
    of the options is nowhere in it."""
    more = [f"{label}: {question.about[label]}" for label in sorted(question.about)]
    return "\n".join([question.text.strip(), *more])


def forms(label: str) -> list[str]:
    """The ways of writing a label that count as it: the first letter small or large, with a full stop or without."""
    bare = label.strip()
    bare = bare[:-1] if bare.endswith(".") and bare != "." else bare
    cased = dict.fromkeys([bare, bare[:1].upper() + bare[1:], bare[:1].lower() + bare[1:]])
    return list(dict.fromkeys([*cased, *(f"{text}." for text in cased)]))


@dataclass(frozen=True)
class Decision:
    """The answer to a question."""

    question: Question
    log_probabilities: tuple[float, ...]
    """`[C]`, in nats: of each label as the whole reply, all its forms together, as the model has it."""
    temperature: float | None = None
    """What they were divided by before the softmax; `None` where nothing was applied."""
    source: str | None = None
    """The file that the temperature is from."""

    @property
    def probabilities(self) -> dict[str, float]:
        """Of each label among the labels: the softmax of the log-probabilities over the temperature."""
        return dict(zip(self.question.labels, softmax(self.log_probabilities, self.temperature or 1.0), strict=True))

    @property
    def mass(self) -> float:
        """How much of the model's distribution over replies the labels hold together, without a temperature: near 0
        the model would have said something else."""
        return min(1.0, sum(map(math.exp, self.log_probabilities)))

    @property
    def best(self) -> str:
        """The likeliest label; of equal ones the first in the order of the alphabet."""
        return min(self.probabilities.items(), key=lambda pair: (-pair[1], pair[0]))[0]

    @property
    def confidence(self) -> float:
        """From 0, all labels alike, to 1: of a scale how near its levels lie to the likeliest one, else how far the
        likeliest label is from chance. As transformers' decision models have it."""
        chances = list(self.probabilities.values())
        number = len(chances)
        if not isinstance(self.question, Score):
            return max(0.0, (max(chances) - 1 / number) / (1 - 1 / number))
        place = self.question.labels.index(self.best)
        distance = sum(chance * abs(level - place) for level, chance in enumerate(chances))
        return max(0.0, 1 - distance * number / sum(abs(level - (number - 1) / 2) for level in range(number)))

    @property
    def score(self) -> float:
        """The mean level of a scale, from 0."""
        return sum(level * chance for level, chance in enumerate(self.probabilities.values()))

    def as_json(self) -> dict[str, Any]:
        own: dict[str, Any] = {"score": round(self.score, 6)} if isinstance(self.question, Score) else {}
        return {
            "kind": self.question.kind, "name": self.question.name, "question": self.question.text,
            "answer": self.best, **own, "confidence": round(self.confidence, 6),
            "probabilities": [{"label": k, "probability": round(p, 6)} for k, p in self.probabilities.items()],
            "mass": float(f"{self.mass:.6g}"), "temperature": self.temperature, "temperature_from": self.source,
        }  # fmt: skip


def softmax(log_probabilities: Sequence[float], temperature: float) -> list[float]:
    largest = max(log_probabilities)
    raised = [math.exp((value - largest) / temperature) for value in log_probabilities]
    return [value / sum(raised) for value in raised]


def check_questions(questions: Sequence[Question]) -> None:
    """Raise `BadInput` unless these are questions, one or more."""
    if isinstance(questions, str | bytes) or not isinstance(questions, Sequence) or not questions:
        raise BadInput(f"questions: expected a list of YesNo, Choice and Score, got {type(questions).__name__}")
    for number, question in enumerate(questions, 1):
        if not isinstance(question, YesNo | Choice | Score):
            raise BadInput(f"question {number}: expected YesNo, Choice or Score, got {type(question).__name__}")


def _check(question: Question) -> None:
    """Raise `BadInput` for what cannot be asked."""
    if not isinstance(question.text, str):
        raise BadInput(f"question: expected a text, got {type(question.text).__name__}")
    check_text(question.text, "question")
    where, labels = f"question {question.text[:40]!r}", question.labels
    if isinstance(labels, str) or not 2 <= len(labels) <= MOST_LABELS:
        got = "a single text" if isinstance(labels, str) else str(len(labels))
        raise BadInput(f"{where}: expected 2 to {MOST_LABELS} labels, got {got}")
    known: dict[str, str] = {}
    for number, label in enumerate(labels, 1):
        if not isinstance(label, str):
            raise BadInput(f"{where}: label {number}: expected a text, got {type(label).__name__}")
        check_text(label, f"{where}: label {number}")
        if (other := known.setdefault(min(forms(label)), label)) is not label:
            raise BadInput(f"{where}: expected labels that are told apart, got {other!r} and {label!r}")
    if strange := [label for label in question.about if label not in labels]:
        raise BadInput(f"{where}: about: expected some of {', '.join(labels)}, got {strange[0]!r}")
    for label, said in question.about.items():
        check_text(said, f"{where}: about {label}")
