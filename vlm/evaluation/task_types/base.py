"""What a benchmark task type gets, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.model_under_test import ModelUnderTest, Progress
from vlm.evaluation.portable_paths import portable_name
from vlm.evaluation.requests import Request, Turn
from vlm.evaluation.results import Figure, Sample


@dataclass(frozen=True)
class Job:
    """One benchmark to run."""

    model: ModelUnderTest
    card: BenchmarkCard
    examples: Sequence[Example]
    data: Path | None
    progress: Progress
    prompt: str | None = None
    """The template to use, of the card's; None where the card has none."""
    classes: tuple[str, ...] = ()
    train: Sequence[Example] = ()
    """The examples of `card.train_split`, for types that learn."""

    @property
    def subject(self) -> ModelUnderTest:
        """Kept name of `model`."""
        return self.model

    shown: Sequence[Example] = ()
    """The examples that are shown with their answers before each question."""
    judge: ModelUnderTest | None = None

    def request(
        self, example: Example, prompt: str | None, answered: Callable[[Example], Turn] | None = None,
        before: tuple[Turn, ...] = (),
    ) -> Request:  # fmt: skip
        """What the model is asked about an example, as the card wants it asked.

        `answered` gives the turn of an example that is shown first; an example is never shown before itself. `before`
        is what was said of this one.
        """
        card = self.card
        turns: tuple[Turn, ...] = ()
        if answered is not None and card.in_context is not None:
            own = card.in_context.split == card.split
            turns = tuple(answered(one) for one in self.shown if not (own and one.id == example.id))[: self._count]
        if before:  # the first of them shows the picture
            return Request(None, prompt, card.max_tokens, card.system, (*turns, *before), card.generation)
        return Request(example, prompt, card.max_tokens, card.system, turns, card.generation)

    @property
    def _count(self) -> int:
        shown = self.card.in_context
        return 0 if shown is None else len(shown.ids) or shown.count

    def inputs(self, example: Example) -> dict[str, object]:
        """The example's files by name."""
        if example.frames:
            return {"frames": [portable_name(frame, self.data) for frame in example.frames]}
        if example.image is not None:
            return {"image": portable_name(example.image, self.data)}
        return {"video": portable_name(Path(example.video or ""), self.data)}

    def cluster(self, example: Example) -> str:
        """What samples about one picture or clip share: its name; of frames the clip's own, or that of the first."""
        if example.frames:
            return example.video or portable_name(example.frames[0], self.data)
        return portable_name(example.files[0], self.data)

    def category(self, example: Example) -> str | None:
        if self.card.category is None:
            return None
        value = example.meta.get(self.card.category)
        return None if value is None else str(value)

    def fill(self, template: str, **fields: str | None) -> str:
        """The template with an example's fields. Raises `BadInput` naming a field the example does not have."""
        try:
            return template.format(**{key: value for key, value in fields.items() if value is not None})
        except (KeyError, IndexError) as error:
            have = ", ".join(key for key, value in fields.items() if value is not None)
            raise BadInput(f"benchmark {self.card.name}: prompt {template!r} wants {error}, there is {have}") from None


@dataclass(frozen=True)
class Outcome:
    """Samples in the order of the data, and figures; `main` is the one the benchmark is known by."""

    samples: list[Sample]
    main: str
    figures: dict[str, Figure]
    categories: dict[str, dict[str, Figure]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
