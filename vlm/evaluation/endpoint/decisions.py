"""Decisions of a model behind an endpoint: OpenAI's `/v1/decisions`, which `vlm serve chat` has too. C labels."""

from __future__ import annotations

import json
import math
from typing import Any

from vlm.conversation.messages import Conversation
from vlm.errors import BadInput
from vlm.evaluation.endpoint.wire import Part, messages
from vlm.heads.decisions.questions import Question

LEAST = 5e-324
"""A probability that was rounded to 0 is taken for this."""


def body_of(said: Conversation, question: Question) -> dict[str, Any]:
    """The request, without its model. The words after the last picture are the question's.

    Yes or no is asked as a choice, whose answer says both probabilities: one of them as 1 less the other would be
    rounded away where the model is sure. Raises `BadInput` where no words come after the last picture.
    """
    *before, last = [{**message, "content": _parts(message["content"])} for message in messages(said)]
    *shown, asked = last["content"]
    if asked["type"] != "input_text":
        raise BadInput(f"question {question.text[:40]!r}: expected its words after its pictures, to be asked elsewhere")
    choices = [{"value": label} for label in question.labels]
    return {
        "input": [*before, *([{**last, "content": shown}] if shown else [])],
        "questions": [{"type": "choice", "instructions": asked["text"], "choices": choices}],
    }


def log_probabilities(content: bytes, question: Question) -> tuple[float, ...] | None:
    """`[C]` in nats, each up to the same number, without the temperature that the server says it applied; `None` where
    the answer is no decision."""
    try:
        (answer,) = json.loads(content)["answers"]
        chances = {one["value"]: float(one["probability"]) for one in answer["probabilities"]}
        temperature = float(answer.get("temperature") or 1.0)
        found = tuple(temperature * math.log(max(chances[label], LEAST)) for label in question.labels)
        return found if all(math.isfinite(each) for each in found) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _parts(content: str | list[Part]) -> list[Part]:
    """In the words of OpenAI's responses, which decisions share."""
    parts: list[Part] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [
        {"type": "input_text", "text": part["text"]} if part["type"] == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"]}
        for part in parts
    ]  # fmt: skip
