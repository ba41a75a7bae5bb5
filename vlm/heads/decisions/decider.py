"""Answers to typed questions by how likely each label is as the whole reply.

A picture is encoded once, whatever is asked about it; all questions and labels lie behind it in one sequence, each
blind to the others (`vlm.conversation.packing`), so they share one prefill and each is scored as it would be alone.
R reply tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeGuard, cast

import torch
from torch import Tensor

from vlm.conversation.messages import Conversation, Message, Messages, Part, read_messages
from vlm.conversation.packing import packed
from vlm.engine.likelihood import log_likelihoods
from vlm.errors import BadInput
from vlm.heads.decisions.questions import Decision, Question, check_questions, forms, words
from vlm.heads.writer import Writer
from vlm.media.open import Media, MediaSource
from vlm.models.processor import Layout, Open, Prompt

TOKENS = 2048
"""Of questions and labels in one sequence; more than these are read in several, each after the same visual tokens."""

Ask: TypeAlias = Callable[[str], Prompt]
"""The prompt of a question about one input."""
See: TypeAlias = Callable[[Media, Layout], Sequence[Tensor]]
"""The visual tokens `[M, D]` of a picture or clip."""


class Temperatures(NamedTuple):
    """A temperature for each kind of question that has one."""

    of: Mapping[str, float]
    source: str | None = None


class Decided(NamedTuple):
    answers: list[Decision]
    tokens: int
    """That the model read for them."""


class _Branch(NamedTuple):
    question: int
    label: int
    prompt: list[int]
    reply: list[int]


class Decider:
    """A label's log-probability is the sum over its tokens and the end of the reply, so labels of several tokens are
    scored as sequences and no two labels overlap; its `forms` count together. The options are in no order in the
    prompt: the order in which they are given moves a probability by rounding alone."""

    def __init__(self, writer: Writer, temperatures: Temperatures | None = None):
        self.writer, self.temperatures = writer, temperatures or Temperatures({})

    def about_media(self, item: Media) -> Ask:
        """Asks about a picture or clip as `Writer.answer` does."""
        return lambda text: self.writer.prompts([item], [text])[0]

    def about_conversation(self, said: Conversation) -> Ask:
        """Asks at the end of a conversation: after the words of the user's last turn, or in a turn of its own."""
        return lambda text: self.writer.processor.prompt(_asked(said.messages, text), said.media)

    def about(self, source: MediaSource | Messages, open_one: Open) -> Ask:
        """Asks about what a caller gave: a conversation in OpenAI's shape, else a picture or clip."""
        if is_messages(source):
            said, media = read_messages(source, None, self.writer.processor.placeholders)
            return self.about_conversation(Conversation(said, tuple(open_one(one) for one in media)))
        return self.about_media(open_one(cast(MediaSource, source)))

    @torch.inference_mode()
    def decide(
        self, ask: Ask, questions: Sequence[Question], see: See | None = None, wanted: Callable[[], None] = lambda: None
    ) -> Decided:
        """The answers about one input, in order. `see` may know pictures from before; `wanted` is called before each
        pass through the model, and what it raises ends the work. Raises `BadInput` for what cannot be asked, or is too
        long."""
        check_questions(questions)
        prompts = [ask(words(question)) for question in questions]
        branches = self._branches(prompts, questions)
        first = prompts[0]
        seen: list[Tensor] = []
        for item, layout in zip(first.media, first.layouts, strict=True):
            wanted()
            seen += (see or self.writer.visual)(item, layout)
        found: list[list[list[float]]] = [[[] for _ in question.labels] for question in questions]
        read = 0
        for group in _grouped(branches):
            wanted()
            sequence = packed([branch.prompt for branch in group], [branch.reply for branch in group])
            read += len(sequence.prefix) + sum(len(one.context) + len(one.reply) for one in sequence.branches)
            (chances_R,) = log_likelihoods(self.writer.model, [sequence], seen)
            for branch, own_R in zip(group, chances_R.split([len(one.reply) for one in group]), strict=True):
                found[branch.question][branch.label].append(float(own_R.double().sum()))
        return Decided([self._decision(*pair) for pair in zip(questions, found, strict=True)], read)

    def _branches(self, prompts: Sequence[Prompt], questions: Sequence[Question]) -> list[_Branch]:
        branches = []
        for number, (prompt, question) in enumerate(zip(prompts, questions, strict=True)):
            longest = 0
            for place, label in enumerate(question.labels):
                replies = {tuple(self.writer.processor.reply(form)) for form in forms(label)}
                branches += [_Branch(number, place, prompt.ids, list(reply)) for reply in sorted(replies)]
                longest = max(longest, *map(len, replies))
            self.writer.count(prompt, longest).check()
        return branches

    def _decision(self, question: Question, found: Sequence[Sequence[float]]) -> Decision:
        scores = tuple(float(torch.tensor(own, dtype=torch.float64).logsumexp(0)) for own in found)
        if not all(score > -float("inf") for score in scores):  # NaN too
            raise BadInput(f"question {question.text[:40]!r}: expected finite log-probabilities, got {list(scores)}")
        temperature = self.temperatures.of.get(question.kind)
        return Decision(question, scores, temperature, None if temperature is None else self.temperatures.source)


def is_messages(source: MediaSource | Messages) -> TypeGuard[Messages]:
    return isinstance(source, list | tuple) and bool(source) and all(isinstance(one, Mapping) for one in source)


def _grouped(branches: Sequence[_Branch]) -> Iterator[list[_Branch]]:
    """As many at a time as `TOKENS` allows beside what all prompts begin with."""
    least = min(len(branch.prompt) for branch in branches)
    shared = next(
        (i for i in range(least) if len({branch.prompt[i] for branch in branches}) > 1), least
    )  # fmt: skip
    group: list[_Branch] = []
    room = TOKENS
    for branch in branches:
        cost = len(branch.prompt) - shared + len(branch.reply)
        if group and cost > room:
            yield group
            group, room = [], TOKENS
        group.append(branch)
        room -= cost
    yield group


def _asked(messages: Sequence[Message], text: str) -> list[Message]:
    *before, last = messages
    if last.role != "user":
        return [*messages, Message("user", (Part("text", text),))]
    parts = last.parts
    if parts and parts[-1].kind == "text":
        return [*before, Message("user", (*parts[:-1], Part("text", f"{parts[-1].text.rstrip()}\n\n{text}")))]
    return [*before, Message("user", (*parts, Part("text", text)))]
