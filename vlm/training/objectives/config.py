"""Objectives as data: what a recipe's `objective` may be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vlm.config import Config
from vlm.language.config import LanguageConfig
from vlm.training.recipe import Objective, Recipe


class SourceConfig(Config):
    """One data set of a mixture; `share` is its part of the examples."""

    dataset: str
    split: str = "train"
    use: Literal["captions", "caption_questions", "questions", "clips"]
    share: PositiveFloat
    branches: PositiveInt = 5
    """Replies packed behind one picture, at most."""


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
    """Next-token loss on captions and answers behind visual prefixes."""

    kind: Literal["instruct"]
    sources: list[SourceConfig]
    lora: LoRAConfig | None = None
    sampled_words: NonNegativeInt = 2048
    """Random words beside those of the data in each step's softmax; 0 takes the whole vocabulary."""


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
