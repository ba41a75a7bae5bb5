"""From a request's fields to the engine's terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vlm.engine.constraint import Vocabulary, choices, grammar, json_schema, regex
from vlm.engine.request import Constraint, Sampling
from vlm.media.video.sampling.base import Sampler
from vlm.server.chat.asked import Asked, Looked, characters
from vlm.server.chat.media import Looks, Named, looks
from vlm.server.chat.service import Constrains
from vlm.server.chat.settings import ChatLimits
from vlm.server.http.errors import ApiError


def sampling(asked: Asked, choices: int = 1, logprobs: bool = False) -> Sampling:
    """How tokens are chosen."""
    wishes = (asked.top_p, asked.top_k, asked.min_p, asked.seed)
    draws = choices > 1 or any(wish is not None for wish in wishes)
    return Sampling(
        temperature=asked.temperature if asked.temperature is not None else float(draws),
        top_k=asked.top_k if (asked.top_k or 0) > 0 else None,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        min_p=asked.min_p or 0.0,
        repetition_penalty=asked.repetition_penalty or 1.0,
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        bias={int(token): bias for token, bias in (asked.logit_bias or {}).items()},
        seed=asked.seed,
        alternatives=(asked.top_logprobs or 0) if logprobs else None,
    )


def constraint(asked: Asked, schema: dict[str, Any] | None) -> Constrains | None:
    """What makes the constraint of a reply, or nothing where it has none; `schema` is of its JSON."""
    makers: tuple[tuple[Any, Callable[[Vocabulary, Any], Constraint]], ...] = (
        (schema, json_schema), (asked.guided_choice, choices), (asked.guided_regex, regex),
        (asked.guided_grammar, grammar),
    )  # fmt: skip
    for given, make in makers:
        if given is not None:
            return partial(_made, make, given)
    return None


def _made(make: Callable[[Vocabulary, Any], Constraint], given: Any, vocabulary: Vocabulary) -> Constraint:
    return make(vocabulary, given)


def shown(
    said: Sequence[tuple[str, Any]], asked: Looked, sampler: Sampler, limits: ChatLimits
) -> tuple[list[dict[str, Any]], list[Named]]:
    """Messages, given as (role, content), and what they show. Raises `ApiError` for more than the limits."""
    if (length := characters([content for _, content in said])) > limits.characters:
        raise ApiError(413, "too_large", f"messages: expected at most {limits.characters} characters, got {length}")
    look = looks(asked, sampler, limits)
    messages: list[dict[str, Any]] = []
    media: list[Named] = []
    for role, content in said:
        parts: list[dict[str, Any]] = []
        for part in [content] if isinstance(content, str) else content or ():
            if isinstance(part, str) or part.kind == "text":
                text = part if isinstance(part, str) else part.text
                parts += [{"type": "text", "text": text}] if text else []
                continue
            parts.append({"type": part.kind, "number": len(media)})
            media.append(_named(part, look))
        messages.append({"role": role, "content": parts})
    for name, what in (("fps", "clip"), ("max_frames", "clip"), ("min_pixels", "picture"), ("max_pixels", "picture")):
        if getattr(asked, name) is not None and not any(one.video or what == "picture" for one in media):
            raise ApiError(422, "invalid", f"{name}: expected a {what} among the messages")
    return messages, media


def _named(part: Any, look: Looks) -> Named:
    address = part.address
    return Named(address.url, part.kind == "video", look if part.kind == "video" else look.low(address.detail))
