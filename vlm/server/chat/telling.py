"""What is told of a reply in every form: tokens with their chances, what it cost, how media were seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from vlm.engine import request as engine
from vlm.media.open import Media
from vlm.models.processor import Processor, Prompt
from vlm.server.chat.completion_schemas import MediaUsage, PromptDetails, TokenLogprob, TopLogprob, Usage

LEAST = -9999.0
"""JSON has no infinity."""
LENGTH: frozenset[engine.Finish] = frozenset({"length", "deadline"})


def reason(finish: engine.Finish) -> Literal["stop", "length"]:
    """As OpenAI names it; a deadline is told beside it."""
    return "length" if finish in LENGTH else "stop"


def logprobs(processor: Processor, tokens: Iterable[engine.Token]) -> list[TokenLogprob]:
    found = []
    for token in tokens:
        top = [_chance(processor, chance.token, chance.logprob) for chance in token.top]
        chosen = _chance(processor, token.token, token.logprob or 0.0)
        found.append(TokenLogprob(token=chosen.token, bytes=chosen.bytes, logprob=chosen.logprob, top_logprobs=top))
    return found


def _chance(processor: Processor, token: int, logprob: float) -> TopLogprob:
    """Half a character has no text of its own, and its bytes are not known then."""
    text = processor.tokenizer.decode([token], control=True)
    content = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return TopLogprob(token=text, bytes=content, logprob=max(logprob, LEAST))


def usage(used: engine.Usage, seen: list[MediaUsage]) -> Usage:
    return Usage(
        prompt_tokens=used.prompt,
        completion_tokens=used.reply,
        total_tokens=used.prompt + used.reply,
        prompt_tokens_details=PromptDetails(cached_tokens=used.cached, image_tokens=used.image),
        media=seen,
    )


def seen(processor: Processor, prompt: Prompt, media: Sequence[Media]) -> list[MediaUsage]:
    """Each picture and clip as it was shown to the model, in the order of `media`; a prompt may have another."""
    counted = {
        id(item): sum(picture.tokens for picture in processor.media_tokens(layout))
        for item, layout in zip(prompt.media, prompt.layouts, strict=True)
    }
    return [
        MediaUsage(
            kind="video" if item.is_clip else "image",
            size=item.frames[0].size,
            frames=len(item.frames),
            times=[round(time, 3) for time in item.times],
            image_tokens=counted[id(item)],
            notes=list(item.notes),
        )
        for item in media
    ]
