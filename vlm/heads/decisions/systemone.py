"""Questions and answers as transformers' decision models take and give them: `choice`, `score` and `noul`, which is
yes or no. A file of questions and `/v1/systemone` have this shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlm.errors import BadInput
from vlm.heads.decisions.questions import NO, YES, Choice, Decision, Question, Score, YesNo

SIDES = {"true": YES, "false": NO}
KEYS = {"type", "instructions", "criteria"}


def read_questions(questions: Any) -> list[Question]:
    """`{name: {"type": ..., "instructions": ..., "criteria": ...}}`. Raises `BadInput` naming the question."""
    if not isinstance(questions, Mapping) or not questions:
        raise BadInput(f"questions: expected an object of named questions, got {type(questions).__name__}")
    return [_question(str(name), question) for name, question in questions.items()]


def _question(name: str, given: Any) -> Question:
    where = f"question {name[:40]!r}"
    kind = given.get("type") if isinstance(given, Mapping) else given
    if kind not in ("noul", "choice", "score"):
        raise BadInput(f"{where}: expected an object of type noul, choice or score, got {kind!r}")
    if strange := sorted(set(given) - KEYS):
        raise BadInput(f"{where}: expected {', '.join(sorted(KEYS))}, got {strange[0]!r}")
    text, criteria = content(given.get("instructions")), given.get("criteria")
    if kind == "score":
        if not isinstance(criteria, list):
            raise BadInput(f"{where}: criteria: expected a list of levels, got {type(criteria).__name__}")
        return _named(where, lambda: Score(text, tuple(map(content, criteria)), name))
    if not isinstance(criteria, Mapping) and not (kind == "noul" and criteria is None):
        raise BadInput(f"{where}: criteria: expected an object of options, got {type(criteria).__name__}")
    about = {str(option): content(said) for option, said in (criteria or {}).items()}
    told = {option: said for option, said in about.items() if said}
    if kind == "choice":
        return _named(where, lambda: Choice(text, tuple(about), name, told))
    if strange := [option for option in about if option not in SIDES]:
        raise BadInput(f"{where}: criteria: expected true and false, got {strange[0]!r}")
    return _named(where, lambda: YesNo(text, name, {SIDES[option]: said for option, said in told.items()}))


def _named(where: str, make: Any) -> Any:
    try:
        return make()
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def content(value: Any) -> str:
    """A text as it is, and other JSON written out."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def answer(decision: Decision) -> dict[str, Any]:
    """As transformers answers, with the mass and the temperature beside it."""
    question, chances = decision.question, decision.probabilities
    told = {"mass": decision.mass, "temperature": decision.temperature, "temperature_from": decision.source}
    if isinstance(question, YesNo):
        return {"type": "noul", "noul": chances[YES], **told}
    if isinstance(question, Choice):
        own = {"type": "choice", "choice": decision.best, "confidence": decision.confidence}
        return {**own, "probabilities": chances, **told}
    numbered = {str(level): label for level, label in enumerate(question.levels)}
    return {
        "type": "score", "score": decision.score, "legend": numbered, "confidence": decision.confidence,
        "probabilities": {level: chances[label] for level, label in numbered.items()}, **told,
    }  # fmt: skip
