"""What an instruct stage reads: captions and questions of data sets, and conversations of a file, as sequences."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vlm.conversation.packing import Packed, packed
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT, tidy
from vlm.datasets.caption_questions import questions
from vlm.datasets.conversations import ConversationFile, Sample
from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.models.processor import Prompt
from vlm.training.inputs import Shown, TrainingInputs
from vlm.training.quarantine import Quarantine

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One sequence of a batch: what it shows, and its tokens."""

    shown: Shown
    packed: Packed


class Source(Protocol):
    share: float
    """Of all examples, beside the other sources' shares."""

    def __len__(self) -> int: ...

    def items(self, place: int, rng: random.Random, mirror: bool) -> list[Item]:
        """The sequences of one example; none where it cannot be used."""

    def replies(self) -> Iterable[Sequence[int]]:
        """All that is learned, as tokens."""


class ExampleSource:
    """Examples of a data set. Question rows of one picture are already together (`by_picture`)."""

    def __init__(
        self,
        examples: list[Example],
        use: Literal["captions", "caption_questions", "questions", "clips"],
        inputs: TrainingInputs,
        share: float = 1.0,
        branches: int = 5,
    ):
        self.examples, self.use, self.share, self.branches = examples, use, share, branches
        self._inputs, self._processor = inputs, inputs.parts.processor

    def __len__(self) -> int:
        return len(self.examples)

    def items(self, place: int, rng: random.Random, mirror: bool) -> list[Item]:
        example, flipped = self.examples[place], False
        if self.use == "captions":
            pairs = [(CAPTION_PROMPT, tidy(caption)) for caption in example.captions]
        elif self.use == "clips":
            pairs = [(CLIP_PROMPT, tidy(caption)) for caption in example.captions]
        elif self.use == "caption_questions":
            pairs = questions(example.captions, rng, self.branches)
        else:
            pairs = list(example.meta["pairs"])
        pairs = pairs or [(CAPTION_PROMPT, tidy(example.captions[0]))]  # captions that support no question
        if len(pairs) > self.branches:
            pairs = rng.sample(pairs, self.branches)
        if mirror and self.use in ("captions", "caption_questions"):
            flipped = rng.random() < 0.5 and not any(_SIDE.search(text) for pair in pairs for text in pair)
        item = self._inputs.media(example, flipped)
        prompts = [self._inputs.prompt(item, question) for question, _ in pairs]
        replies = [self._processor.reply(text) for _, text in pairs]
        shown = Shown(prompts[0], (example.pictures,), flipped)
        return [Item(shown, packed([prompt.ids for prompt in prompts], replies))]

    def replies(self) -> Iterator[Sequence[int]]:
        for example in self.examples:
            texts = [tidy(caption) for caption in example.captions]
            texts += [answer for _, answer in example.meta.get("pairs", [])]
            if self.use == "caption_questions":
                texts = [word for caption in texts for word in caption.lower().split()] + ["yes", "no"]
            yield from map(self._processor.reply, texts)


class ConversationSource:
    """Conversations of a file, those at `places` among the lines that can be used."""

    def __init__(
        self, file: ConversationFile, inputs: TrainingInputs, quarantine: Quarantine, places: range, share: float = 1.0
    ):
        self.file, self.share, self.places = file, share, places
        self._inputs, self._processor, self._quarantine = inputs, inputs.parts.processor, quarantine
        self._context = inputs.parts.model.language.cfg.context

    def __len__(self) -> int:
        return len(self.places)

    def items(self, place: int, rng: random.Random, mirror: bool) -> list[Item]:
        sample = self.file[self.places[place]]
        try:
            files, media = self._inputs.opened(sample.media)
            return self._sequences(sample, files, media)
        except BadInput as error:
            self._quarantine.add(sample.where, str(error).removeprefix(f"{sample.where}: "))
            return []

    def replies(self) -> Iterator[Sequence[int]]:
        for place in self.places:
            sample = self.file[place]
            for number in sample.learned:
                yield self._processor.reply(sample.messages[number].text)

    def _sequences(self, sample: Sample, files: Sequence[tuple[Path, ...]], media: Sequence[Media]) -> list[Item]:
        turns = [self._turn(sample, number, media) for number in sample.learned]
        for prompt, reply in turns:
            if (tokens := len(prompt.ids) + len(reply)) > self._context:
                raise BadInput(f"{tokens} tokens; the language model reads at most {self._context}")
        return [
            Item(Shown(prompt, tuple(files[: len(prompt.media)])), one)
            for prompt, one in one_sequence(turns) or each_by_itself(turns)
        ]

    def _turn(self, sample: Sample, number: int, media: Sequence[Media]) -> tuple[Prompt, list[int]]:
        """What stands before a reply, as the model is asked with it, and the reply."""
        before, shown = sample.before(number)
        return self._processor.prompt(before, media[:shown]), self._processor.reply(sample.messages[number].text)


def one_sequence(turns: Sequence[tuple[Prompt, list[int]]]) -> list[tuple[Prompt, Packed]]:
    """A conversation of several replies as one sequence; none where a later prompt does not go on from an earlier one
    and its reply to the token: where a template rewrites earlier turns, or a picture's tiles depend on how many there
    are."""
    learned: list[range] = []
    ids: list[int] = []
    for prompt, reply in turns:
        if prompt.ids[: len(ids)] != ids:
            return []
        learned.append(range(len(prompt.ids), len(prompt.ids) + len(reply)))
        ids = prompt.ids + reply
    last = turns[-1][0]
    for prompt, _ in turns:
        if last.layouts[: len(prompt.layouts)] != prompt.layouts:
            return []
    return [(last, Packed(ids, learned=tuple(learned)))]


def each_by_itself(turns: Sequence[tuple[Prompt, list[int]]]) -> list[tuple[Prompt, Packed]]:
    return [(prompt, packed([prompt.ids], [reply])) for prompt, reply in turns]


def by_picture(examples: list[Example]) -> list[Example]:
    """Question rows gathered by picture: one example each, its questions as `meta["pairs"]`."""
    pairs: dict[object, list[tuple[str, str]]] = {}
    first: dict[object, Example] = {}
    for example in examples:
        if example.question and example.answers:
            key = example.pictures or example.video
            first.setdefault(key, example)
            pairs.setdefault(key, []).append((example.question, example.answers[0]))
    return [e.model_copy(update={"meta": {"pairs": pairs[key]}}) for key, e in first.items()]
