"""What a benchmark asks of a model, as a conversation: the one place where its turns are put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vlm.conversation.messages import Conversation, Message, Part, question
from vlm.datasets.examples import Example
from vlm.evaluation.asking import Generation
from vlm.heads.writer import caption_prompts
from vlm.media.open import Media

_PICTURE = re.compile(r"<image(?: (\d+))?>")
"""Where a question says where its pictures stand: `<image 2>` by number, `<image>` in their order."""

Ask = Callable[[str, Media], Sequence[Message]]
"""The messages in which a user asks about one picture or clip, as the model's processor says them."""


@dataclass(frozen=True)
class Turn:
    """An earlier exchange: an example that is shown, or what was said before."""

    example: Example | None
    prompt: str
    reply: str


@dataclass(frozen=True)
class Request:
    """A question, or an instruction, about an example's pictures or clip; no prompt asks for a caption."""

    example: Example | None
    """None: a question of words alone."""
    prompt: str | None
    max_tokens: int
    system: str = ""
    before: tuple[Turn, ...] = ()
    generation: Generation = field(default_factory=Generation)

    @property
    def examples(self) -> tuple[Example, ...]:
        """Every example it shows, in order."""
        shown = (*(turn.example for turn in self.before), self.example)
        return tuple(example for example in shown if example is not None)


def ask(text: str, item: Media) -> Sequence[Message]:
    return question(text, item.is_clip)


def conversation(request: Request, media: Sequence[Sequence[Media]], ask: Ask = ask) -> Conversation:
    """The request's turns; `media` are the opened pictures of each of `request.examples`."""
    opened = iter(media)
    messages = [Message("system", (Part("text", request.system),))] if request.system else []
    shown: list[Media] = []
    turns = (*request.before, Turn(request.example, request.prompt or "", ""))
    for number, turn in enumerate(turns, 1):
        items = list(next(opened)) if turn.example is not None else []
        text = turn.prompt if turn.prompt else caption_prompts(items[:1])[0]
        asked, items = _user(text, items, ask)
        messages += asked
        shown += items
        if number < len(turns):
            messages.append(Message("assistant", (Part("text", turn.reply),)))
    return Conversation(tuple(messages), tuple(shown))


def _user(text: str, items: list[Media], ask: Ask) -> tuple[Sequence[Message], list[Media]]:
    """A user's words with pictures, which stand where the words say so and else before them."""
    if len(items) == 1:
        return ask(text, items[0]), items
    if not items:
        return [Message("user", (Part("text", text),))], []
    parts: list[Part] = []
    order: list[int] = []
    end = 0
    for mark in _PICTURE.finditer(text):
        number = int(mark[1]) - 1 if mark[1] else len(order)
        if number in range(len(items)) and number not in order:
            parts += [Part("text", text[end : mark.start()]), Part("image")]
            order.append(number)
            end = mark.end()
    unnamed = [number for number in range(len(items)) if number not in order]
    parts = [Part("image")] * len(unnamed) + [*parts, Part("text", text[end:])]
    parts = [part for part in parts if part.kind != "text" or part.text.strip()]
    return [Message("user", tuple(parts))], [items[number] for number in (*unnamed, *order)]
