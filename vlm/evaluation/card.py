"""Benchmark cards: a data set's split, what is asked of the model, and how it is scored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from vlm import assets, config
from vlm.config import Config
from vlm.datasets.names import named_list

Kind = Literal["retrieval", "caption", "vqa", "choice", "classification", "moments"]
Protocol = Literal["vqav2", "okvqa", "vizwiz", "textvqa", "gqa", "exact", "anls", "relaxed", "pope"]


class Published(Config):
    """A score others report, as they report it."""

    model: str
    metric: str
    value: float
    source: str
    note: str = ""


class BenchmarkCard(Config):
    """One benchmark. `prompts` are templates over an example's fields (`{question}`, `{options}`, `{label}`).

    `prompts[0]` is the one that counts; the others are for measuring how much the wording matters. A classification
    card's prompts are an ensemble: a class's vector is the mean over all of them. A file may name a list of
    `vlm/datasets/names.py` instead.
    """

    name: str
    about: str
    dataset: str
    split: str
    kind: Kind
    prompts: tuple[str, ...] = ()
    max_tokens: PositiveInt = 40
    protocol: Protocol = "exact"
    """How an answer is compared with the annotators' (kind `vqa`)."""
    answer: Literal["as_said", "short"] = "as_said"
    """How an answer is read from a reply: whole, or its first line in lower case without a final period."""
    circular: bool = False
    """Ask every rotation of the options and count a question only if all are right (MMBench; kind `choice`)."""
    category: str | None = None
    """The key of an example's `meta` by which figures are also given apart."""
    groups: tuple[str, ...] = ()
    """Names under which `--tasks` takes several benchmarks at once."""
    published: tuple[Published, ...] = Field(default=())

    @field_validator("prompts", mode="before")
    @classmethod
    def _named(cls, prompts: Any) -> Any:
        return named_list(prompts) if isinstance(prompts, str) else prompts


def load_card(name_or_path: str) -> BenchmarkCard:
    return config.load(BenchmarkCard, assets.find_card("eval", name_or_path, "benchmark"))
