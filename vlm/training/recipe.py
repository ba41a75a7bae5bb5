"""A training stage as data: what `vlm train configs/train/NAME.yaml` reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vlm.config import Config
from vlm.language.config import LanguageConfig
from vlm.training.contrastive.config import ContrastiveObjective


class OptimizerConfig(Config):
    """AdamW (arXiv:1711.05101) with a linear warm-up and a cosine to zero."""

    lr: PositiveFloat
    lr_of: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Learning rates of parameters whose names start with the key."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: NonNegativeInt = 0
    clip: PositiveFloat = 1.0
    """Largest norm of the whole gradient."""


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


class WordsObjective(Config):
    """Read the captions' words off the projected patches through the language model's own embedding table."""

    kind: Literal["words"]
    dataset: str


class InstructObjective(Config):
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


class TextObjective(Config):
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

    @model_validator(mode="after")
    def _has_a_text(self) -> TextObjective:
        if (self.dataset is None) == (self.path is None):
            raise ValueError(f"expected either a dataset or a path of text, got {self.dataset} and {self.path}")
        return self


Objective = Annotated[
    ContrastiveObjective | WordsObjective | InstructObjective | TextObjective, Field(discriminator="kind")
]


class Recipe(Config):
    model: str | None = None
    """A model card's name or path; of objective `text` the folder of a language model, or none where one starts at
    random."""
    objective: Objective
    start_from: str | None = None
    """A run's folder, or a checkpoint folder, whose trained weights this stage begins with."""
    data: str | None = None
    """The folder that holds the data sets' folders; `$VLM_DATA` by default."""
    output: str
    steps: PositiveInt
    batch: PositiveInt
    optimizer: OptimizerConfig
    mirror: bool = False
    """Also show every picture mirrored."""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """Fuse norms and gates with torch.compile (needs a C++ compiler; about a minute at the start)."""
    seed: int = 0
    save_every: PositiveInt = 200
    validate_every: PositiveInt = 200
    log_every: PositiveInt = 10

    @model_validator(mode="after")
    def _has_a_model(self) -> Recipe:
        starts = isinstance(self.objective, TextObjective) and self.objective.language is not None
        if (self.model is None) != starts:
            raise ValueError(f"expected a model{' or an objective.language, not both' if starts else ''}")
        if isinstance(self.objective, TextObjective) and self.start_from is not None:
            raise ValueError("start_from: objective text goes on from a folder that model names")
        return self
