"""A training stage as data: what `vlm train configs/train/NAME.yaml` reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from vlm.config import Config


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


class ContrastiveObjective(Config):
    """Match pictures with their captions in the shared space."""

    kind: Literal["contrastive"]
    dataset: str
    loss: Literal["clip", "siglip"] = "clip"
    captions: PositiveInt = 5
    """Captions of a picture in one batch, at most."""
    text: Literal["encoder", "language"] | None = None
    """Whose states the text head reads, where it is not what the model card says."""


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


Objective = Annotated[ContrastiveObjective | WordsObjective | InstructObjective, Field(discriminator="kind")]


class Recipe(Config):
    model: str
    """A model card's name or path."""
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
