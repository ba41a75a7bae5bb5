"""What `/v1/decisions` and `/v1/systemone` take: OpenAI's form and transformers', as far as questions are texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, Tag

from vlm.heads.decisions.questions import YES, Choice, Decision, Question, Score, YesNo
from vlm.server.chat.asked import Looked, Schema, Taken
from vlm.server.chat.response_schemas import InputMessages
from vlm.server.http.schemas import Body, Text, either

Name: TypeAlias = Annotated[str, Field(max_length=256)]
Label: TypeAlias = Annotated[str, Field(min_length=1, max_length=1024)]
Data: TypeAlias = Annotated[str, Field(max_length=64 * 2**20)]


def _plain(value: Any) -> Any:
    from vlm.server.http.schemas import plain

    plain({"state": value})
    return value


class Predicate(Body):
    type: Literal["predicate"]
    instructions: Text
    name: Name | None = None


class ChoiceValue(Body):
    value: Label | bool
    description: Text | None = None


class ChoiceQuestion(Body):
    type: Literal["choice"]
    instructions: Text
    choices: Annotated[list[ChoiceValue], Field(min_length=2, max_length=255, fail_fast=True)]
    name: Name | None = None


class Level(Body):
    label: Label
    description: Text | None = None


class ScoreQuestion(Body):
    type: Literal["score"]
    instructions: Text
    levels: Annotated[list[Level], Field(min_length=2, max_length=255, fail_fast=True)]
    name: Name | None = None


AnyQuestion: TypeAlias = Annotated[Predicate | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]


class DecisionsRequest(Looked):
    model: str | None = None
    input: Annotated[
        Annotated[Text, Tag("words")] | Annotated[InputMessages, Tag("many")], either(words=str, many=list)
    ]
    questions: Annotated[list[AnyQuestion], Field(min_length=1, max_length=400, fail_fast=True)]
    prompt_cache_key: Taken = None
    prompt_cache_options: Taken = None
    safety_identifier: Taken = None

    def asked(self) -> list[Question]:
        """Raises `BadInput`."""
        return [_question(one) for one in self.questions]

    def answers(self, found: list[Decision]) -> list[dict[str, Any]]:
        """In the order of the questions; with the mass and the temperature beside what OpenAI has."""
        return [_answer(*pair) for pair in zip(self.questions, found, strict=True)]


class Asset(Body):
    data_base64: Data
    media_type: Name | None = None


class SystemOneRequest(Looked):
    model: str | None = None
    state: Annotated[str | dict[str, Any] | list[Any], AfterValidator(_plain)]
    questions: Annotated[dict[Name, Schema], Field(min_length=1, max_length=64)]
    assets: Annotated[dict[Label, Asset], Field(max_length=4)] = Field(
        {}, description="Pictures, by what stands for them in the state."
    )


def written(value: str | bool) -> str:
    """A choice's value as the model would write it."""
    return value if isinstance(value, str) else str(value).lower()


def _question(given: Predicate | ChoiceQuestion | ScoreQuestion) -> Question:
    text, name = given.instructions, given.name or ""
    if isinstance(given, Predicate):
        return YesNo(text, name)
    if isinstance(given, ChoiceQuestion):
        about = {written(one.value): one.description for one in given.choices if one.description}
        return Choice(text, tuple(written(one.value) for one in given.choices), name, about)
    about = {one.label: one.description for one in given.levels if one.description}
    return Score(text, tuple(one.label for one in given.levels), name, about)


def _answer(given: Predicate | ChoiceQuestion | ScoreQuestion, found: Decision) -> dict[str, Any]:
    chances: Mapping[str, float] = found.probabilities
    about = {
        "type": given.type, "name": given.name, "mass": found.mass, "temperature": found.temperature,
        "temperature_from": found.source,
    }  # fmt: skip
    if isinstance(given, Predicate):
        return {**about, "probability": chances[YES]}
    if isinstance(given, ChoiceQuestion):
        values = [one.value for one in given.choices]
        listed = [{"value": value, "probability": chances[written(value)]} for value in values]
        best = next(value for value in values if written(value) == found.best)
        return {**about, "choice": best, "confidence": found.confidence, "probabilities": listed}
    levels = [
        {"label": one.label, "value": value, "probability": chances[one.label]}
        for value, one in enumerate(given.levels)
    ]
    return {**about, "score": found.score, "confidence": found.confidence, "probabilities": levels}
