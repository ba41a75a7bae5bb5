"""How a card has its questions asked, beside their words: parts of a benchmark card."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from vlm.config import Config


class Generation(Config):
    """How a reply is chosen. Models here take the likeliest token each time, or search with beams; an endpoint takes
    all but those."""

    temperature: NonNegativeFloat | None = 0.0
    """None leaves it to the endpoint."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """A reply ends before the first of these."""
    beams: Annotated[int, Field(ge=1, le=32)] = 1
    """Of a search for the likeliest reply."""
    more: dict[str, Any] = Field(default_factory=dict)
    """Other keys of an endpoint's request, such as `chat_template_kwargs`."""

    def body(self) -> dict[str, Any]:
        """What a request to an endpoint has of it."""
        own = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed, "stop": list(self.stop) or None}
        return {key: value for key, value in own.items() if value is not None} | self.more

    @property
    def sampled(self) -> str:
        """What only an endpoint can do of it; empty where there is nothing."""
        odd = {"temperature": self.temperature not in (0.0, None), "top_p": self.top_p not in (1.0, None)}
        return ", ".join([key for key, is_set in odd.items() if is_set] + list(self.more))

    def ended(self, text: str) -> str:
        """The reply up to the first text that ends it."""
        ends = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        return text[: min(ends)].strip() if ends else text


class InContext(Config):
    """Examples with their answers, shown before each question."""

    split: str = "train"
    count: PositiveInt = 4
    """Spread evenly over the split."""
    ids: tuple[str, ...] = ()
    """Those of the split with these ids, in this order, instead."""


class ForModel(Config):
    """What is otherwise for models of a name; None leaves it as the card has it."""

    system: str | None = None
    prompts: tuple[str, ...] | None = None
    """As many as the card's."""
    max_tokens: PositiveInt | None = None
    generation: Generation | None = None


JUDGE_PROMPT = (
    "Question: {question}\nReference answer: {references}\nAnswer to be judged: {answer}\n"
    "Does the answer mean the same as the reference answer? Reply with yes or no."
)


class Judge(Config):
    """A model that reads replies and says how right they are."""

    model: str | None = None
    """As `--model` takes it: a name, a folder, an endpoint's address; `--judge` goes before it."""
    model_name: str | None = None
    """Of an endpoint with several models."""
    system: str = ""
    prompt: str = JUDGE_PROMPT
    """With `{question}`, `{references}`, `{answer}` (what the model said) and `{options}`."""
    reads: Literal["yes_no", "number"] = "yes_no"
    """The first yes or no (or correct, incorrect) of its reply, or the last number."""
    most: PositiveFloat = 1.0
    """The number that is all right."""
    max_tokens: PositiveInt = 16
    sees: bool = False
    """Whether it is shown the pictures."""
