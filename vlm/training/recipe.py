"""A training stage as data: what `vlm train configs/train/NAME.yaml` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vlm.config import Config
from vlm.registry import Chosen, Registry
from vlm.training.task import Log, Task

if TYPE_CHECKING:
    from vlm.models.assembled import Assembled


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


class Objective(Config):
    """What a stage learns: the keys of a recipe's `objective`, and, of a user's own, the task."""

    def check(self, recipe: Recipe) -> None:
        """Raises `ValueError` where the rest of the recipe does not go with it."""
        if recipe.model is None:
            raise ValueError("expected a model")

    def reads(self) -> list[str]:
        """The data sets it learns from, as `CARD:SPLIT`: of each `dataset` among its keys, however deep, the `split`
        beside it, or `train`."""
        return sorted(set(_sources(self.model_dump())))

    def task(self, recipe: Recipe, parts: Assembled | None, data: Path, log: Log) -> Task:
        """The parameters it trains and a loss a step. `parts` is the loaded model with everything frozen, `data` the
        folder of data sets."""
        raise NotImplementedError(f"objective {type(self).__name__} has no task")


def _sources(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(name := value.get("dataset"), str):
            yield f"{name}:{value.get('split') or 'train'}"
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _sources(one)


class OverlapCheck(Config):
    """Benchmarks that must not be in what is learned: looked for before the first step, as by `vlm overlap`."""

    benchmarks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Cards in `eval/`, paths, or `CARD:SPLIT` of data sets."""
    found: Literal["refuse", "warn"] = "refuse"
    """What to do where a sample is there."""
    words: PositiveInt = 8
    """Words in a row that texts share."""
    distance: Annotated[int, Field(ge=0, le=32)] = 8
    """Bits of 64 in which the hashes of like pictures may differ."""


OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    {
        "contrastive": "vlm.training.objectives.contrastive.config:ContrastiveObjective",
        "bag_of_words": "vlm.training.objectives.config:BagOfWordsObjective",
        "words": "vlm.training.objectives.config:BagOfWordsObjective",  # its kept name
        "instruct": "vlm.training.objectives.config:InstructObjective",
        "distil": "vlm.training.objectives.config:DistilObjective",
        "text": "vlm.training.objectives.config:TextObjective",
    },
)


class Recipe(Config):
    model: str | None = None
    """A model card's name or path, or a published model's folder or hub name; of objective `text` the folder of a
    language model, or none where one starts at random."""
    objective: Annotated[Objective, Chosen(OBJECTIVES)]
    learns: tuple[str, ...] | None = None
    """Patterns of module paths that learn (`projector`, `language.layers.*.attention`), of objectives `bag_of_words`
    and `instruct`; what no pattern matches is frozen. By default what the objective names."""
    device: str | None = None
    """`auto` (CUDA, then MPS, then CPU), or one by name."""
    start_from: str | None = None
    """A run's folder, or a checkpoint folder, whose trained weights this stage begins with; `trained` are those that a
    card's model is used with, which a run does not hold again."""
    data: str | None = None
    """The folder that holds the data sets' folders; `$VLM_DATA` by default."""
    overlap: OverlapCheck | None = None
    output: str
    steps: PositiveInt
    batch: PositiveInt
    """Examples a step."""
    accumulate: PositiveInt = 1
    """Parts in which objective `instruct` goes through a step's batch, to save memory; the gradients are the same."""
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
    def _fits(self) -> Recipe:
        self.objective.check(self)
        return self
