"""The model to be measured and the judge of its replies; whether it can do what cards ask is known before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlm.api import Model, load
from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.card import NEEDS, BenchmarkCard
from vlm.evaluation.endpoint.client import EndpointOptions
from vlm.evaluation.endpoint.model import CAN as CHAT_CAN
from vlm.evaluation.endpoint.model import EndpointModel, is_chat_endpoint
from vlm.evaluation.model_under_test import ModelUnderTest
from vlm.evaluation.predictions import Predictions
from vlm.evaluation.served import CAN as SERVER_CAN
from vlm.evaluation.served import ServedModel
from vlm.evaluation.tasks import Prompts
from vlm.media.urls import is_url
from vlm.remote import checked_address


@dataclass(frozen=True)
class Options:
    """How to run, beside what: nothing here changes a figure except `limit` and `prompts`, and by rounding `dtype`."""

    data: str | None = None
    """The folder of data sets; `$VLM_DATA` by default."""
    limit: int | None = None
    batch_size: int | None = None
    """`None` chooses one."""
    output: Path | None = None
    resume: bool = False
    prompts: Prompts = "first"
    device: str = "auto"
    dtype: str = "auto"
    model_name: str | None = None
    """Of a chat endpoint that has several models: the one to ask."""
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    cache: Path | None = None
    """A folder of answers that all runs share; by default each keeps its own in `output`."""
    judge: str | None = None
    """What judges replies where a card wants a judge, instead of the one that it names."""
    judge_name: str | None = None
    """Of a judge's endpoint that has several models."""
    decide: bool = False
    """Whether yes-or-no and multiple-choice questions are also answered by probabilities (`Model.decide`)."""
    temperatures: Path | None = None
    """A `decision.json` for these; by default the one in the model's folder."""


def check_kinds(cards: Sequence[BenchmarkCard], model: str, can: frozenset[str] | None) -> None:
    """Raise `BadInput` naming every benchmark that a model which `can` do this cannot be asked; `None` is unknown."""
    wrong = [card for card in cards if can is not None and NEEDS.get(card.kind, frozenset()) - can]
    if wrong:
        kinds = ", ".join(dict.fromkeys(card.kind for card in wrong))
        able = sorted(kind for kind, needs in NEEDS.items() if can is not None and needs <= can)
        lacks = ", ".join(sorted(set().union(*(NEEDS[card.kind] for card in wrong)) - (can or frozenset())))
        raise BadInput(
            f"model {model}: cannot be measured on {', '.join(card.name for card in wrong)} (kind {kinds}), "
            f"which wants one that {lacks}; expected benchmarks of kind {', '.join(able) or 'none'}"
        )


def known_abilities(model: str | Model | Predictions, options: Options) -> frozenset[str] | None:
    """What a model can do, where that is known before it is loaded."""
    if not isinstance(model, str) or not is_url(model):
        return None
    checked_address(model, options.endpoint.key_variable)
    return CHAT_CAN if is_chat_endpoint(model, options.model_name) else SERVER_CAN


def load_model(model: str | Model, options: Options) -> Model:
    if not isinstance(model, str):
        return model
    if is_url(model):
        if is_chat_endpoint(model, options.model_name):
            return EndpointModel.at(model, options.model_name, options.endpoint)
        return ServedModel(model)
    if options.model_name is not None:
        raise BadInput(f"--model-name {options.model_name}: expected an endpoint's address as --model, got {model}")
    placed = {key: value for key in ("device", "dtype") if (value := getattr(options, key)) != "auto"}
    return load(model, **placed)


def writes(model: Model) -> bool:
    """Whether it answers questions of words."""
    return model.writer is not None or isinstance(model, EndpointModel)


class Judges:
    """The models that judge, each loaded once."""

    def __init__(self, cards: Sequence[BenchmarkCard], options: Options, cache: RequestCache):
        """Loads them all. Raises `BadInput` for one that does not write."""
        self._options = options
        self._models: dict[tuple[str, str | None], ModelUnderTest] = {}
        for card in cards:
            if (key := self._key(card)) is None or key in self._models:
                continue
            loaded = load_model(key[0], replace(options, model_name=key[1]))
            if not writes(loaded):
                raise BadInput(f"benchmark {card.name}: judge {key[0]}: is {loaded.about}; expected one that writes")
            self._models[key] = ModelUnderTest(loaded, cache, options.batch_size, options.cache is not None)

    def of(self, card: BenchmarkCard) -> ModelUnderTest | None:
        """The judge of a card; None where it wants none, or names none and none was given."""
        key = self._key(card)
        return None if key is None else self._models[key].for_task(card)

    def _key(self, card: BenchmarkCard) -> tuple[str, str | None] | None:
        if card.judge is None:
            return None
        if self._options.judge is not None:
            return self._options.judge, self._options.judge_name
        return None if card.judge.model is None else (card.judge.model, card.judge.model_name)

    def close(self) -> None:
        for judge in self._models.values():
            if isinstance(judge.model, EndpointModel):
                judge.model.endpoint.close()
