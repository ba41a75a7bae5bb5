"""Objectives as data: what a recipe's `objective` may be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from vlm.config import Config
from vlm.language.config import LanguageConfig
from vlm.training.recipe import Objective, Recipe


class SourceConfig(Config):
    """A data set, or a file of conversations, of a mixture; `share` is its part of the examples."""

    dataset: str | None = None
    split: str = "train"
    use: Literal["captions", "caption_questions", "questions", "clips"] | None = None
    """What is made of a data set's examples."""
    file: str | None = None
    """Conversations as JSON lines (`vlm.datasets.conversations`): every reply is learned."""
    share: PositiveFloat = 1.0
    branches: PositiveInt = 5
    """Replies packed behind one picture of a data set, at most."""

    @model_validator(mode="after")
    def _is_one(self) -> SourceConfig:
        if (self.dataset is None) == (self.file is None):
            raise ValueError(f"expected either a dataset or a file, got {self.dataset} and {self.file}")
        if (self.use is None) != (self.dataset is None):
            raise ValueError("expected use with a dataset, and none with a file")
        return self


class LoRAConfig(Config):
    """Low-rank adapters (arXiv:2106.09685) on these linears, through peft; merged into the weights on load."""

    rank: PositiveInt
    alpha: PositiveFloat
    targets: tuple[str, ...]


class BagOfWordsObjective(Objective):
    """Predict the bag of words of the captions from the visual tokens, through the language model's embedding table."""

    kind: Annotated[Literal["bag_of_words"], BeforeValidator(lambda kind: "bag_of_words" if kind == "words" else kind)]
    """`words` is its kept name."""
    dataset: str


class InstructObjective(Objective):
    """Next-token loss on replies: captions and answers behind visual prefixes, and conversations."""

    kind: Literal["instruct"]
    sources: Annotated[list[SourceConfig], Field(min_length=1)]
    lora: LoRAConfig | None = None
    sampled_words: NonNegativeInt | None = None
    """Random words beside those of the data in each step's softmax; 0 takes the whole vocabulary. By default 2,048, and
    0 where a source is a file."""
    length: PositiveInt | None = None
    """Tokens of a row, which sequences share as long as there is room (packing); by default each has its own."""
    validate_on: str | None = None
    """A file of conversations that are not learned. By default captions of the first data set with a `val` split, else
    the last twentieth of the first file."""
    faulty: NonNegativeInt = 100
    """Samples that cannot be used, at most: they are left out, and named in `quarantine.jsonl` of the run."""

    @property
    def words_of_a_step(self) -> int:
        if self.sampled_words is None:
            return 0 if any(source.file is not None for source in self.sources) else 2048
        return self.sampled_words

    def reads(self) -> list[str]:
        return sorted({*super().reads(), *(source.file for source in self.sources if source.file is not None)})


class DistilObjective(InstructObjective):
    """Learn from what a larger model would say, token by token, beside the replies themselves (Hinton et al.,
    arXiv:1503.02531). Sources, adapters and packing are those of `instruct`."""

    kind: Literal["distil"]  # type: ignore[assignment]
    teacher: str
    """A model with the same tokens: a card's name, a folder, or a repository."""
    divergence: Literal["forward", "reverse", "skewed", "skewed_reverse"] = "forward"
    """KL(teacher, student); KL(student, teacher), which keeps to the teacher's likeliest words (arXiv:2306.08543); or
    either against a mixture of both (DistiLLM, arXiv:2402.03898, equations 5 and 6)."""
    skew: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the model that learns, or of the teacher, in that mixture."""
    temperature: PositiveFloat = 1.0
    """Both models' logits are divided by it; the divergence is multiplied by its square."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the divergence; the rest is that of the replies' own next-token loss."""

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if self.sampled_words:
            raise ValueError(f"sampled_words: expected 0, the whole vocabulary, got {self.sampled_words}")

    @property
    def words_of_a_step(self) -> int:
        return 0


class BalanceConfig(Config):
    """Fields of `MoEConfig` to train with, in place of those of a loaded model."""

    bias_update_rate: NonNegativeFloat | None = None
    sequence_balance: NonNegativeFloat | None = None
    batch_balance: NonNegativeFloat | None = None
    z_loss: NonNegativeFloat | None = None


class TextObjective(Objective):
    """Next-token loss on plain text: a language model alone, from its start or continued."""

    kind: Literal["text"]
    language: LanguageConfig | None = None
    """A model that starts at random; `None` continues the one in the folder that the recipe's `model` names."""
    init_std: PositiveFloat = 0.02
    """Deviation of its matrices at the start."""
    multi_token: bool = False
    """Load the folder's multi-token heads and train them too."""
    balance: BalanceConfig = BalanceConfig()
    dataset: str | None = None
    """The captions of a data set, all of a picture together, validated on the `val` split."""
    path: str | None = None
    """Or a text file, or a folder of them (`vlm/datasets/texts.py`); a twentieth, from the end, is for validation."""
    length: PositiveInt = 128
    """Tokens of a sequence."""
    multi_token_weight: NonNegativeFloat = 0.3
    """Weight of the multi-token heads' mean loss (arXiv:2412.19437, equation 25)."""
    format: str | None = "deepseek_v3"
    """The family as which the model is written to `model/` in the run's folder; `None` where no family can hold it."""

    def check(self, recipe: Recipe) -> None:
        """A language model from its start has no folder; one that is continued is all in its folder."""
        starts = self.language is not None
        if (recipe.model is None) != starts:
            raise ValueError(f"expected a model{' or an objective.language, not both' if starts else ''}")
        if recipe.start_from is not None:
            raise ValueError("start_from: objective text goes on from a folder that model names")

    @model_validator(mode="after")
    def _has_a_text(self) -> TextObjective:
        if (self.dataset is None) == (self.path is None):
            raise ValueError(f"expected either a dataset or a path of text, got {self.dataset} and {self.path}")
        return self
