"""Benchmark cards: a data set's split, what is asked of the model, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationInfo, field_validator, model_validator

from vlm import assets, config
from vlm.config import Config
from vlm.datasets.examples import load_card as load_dataset
from vlm.datasets.zero_shot_metadata import named_list
from vlm.errors import BadInput
from vlm.evaluation.asking import ForModel, Generation, InContext, Judge
from vlm.media.video.sampling import Sampling
from vlm.metrics.protocols import PROTOCOLS
from vlm.registry import Named, Registry

TASK_TYPES: Registry[Callable[[Any], Any]] = Registry(
    "kind of benchmark",
    {
        name: f"vlm.evaluation.task_types.{name}:run"
        for name in "retrieval caption vqa choice dialogue classification multilabel probe moments rerank".split()
    }
    | {"few_shot": "vlm.evaluation.task_types.probe:few_shot"},
)
"""What runs a benchmark of each type, which is the `kind` of its card: functions `Job -> Outcome` of
`vlm.evaluation.task_types.base`."""
LEARNS = ("probe", "few_shot")
"""Types that learn from another split."""
OWN_CATEGORIES = ("retrieval", "classification", "multilabel", "probe", "few_shot", "rerank")
"""Types whose categories are their directions or their classes."""
ASKED_OF = {
    "in_context": ("vqa", "choice", "caption"),
    "judge": ("vqa", "dialogue"),
    "all_right": ("vqa",),
}
"""Keys of a card and the types that heed them."""
KINDS = TASK_TYPES
"""Kept name."""
NEEDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("caption", "vqa", "choice", "dialogue"), frozenset({"writes"})),
    **dict.fromkeys(
        ("retrieval", "classification", "multilabel", "probe", "few_shot", "moments"), frozenset({"embeds"})
    ),
    "rerank": frozenset({"embeds", "matches"}),
}
"""What a model must be able to do (`vlm.facade.Model.can`) for a benchmark of each type; of others it is not known."""
EMBEDDING_TASKS = tuple(name for name, needs in NEEDS.items() if "embeds" in needs)
"""Types that use embeddings only: their cards' prompts, if any, are not wordings of one question."""


def _template(text: str) -> str:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise ValueError(f"not a template: {error}; write {{{{ and }}}} for braces") from None
    if wrong := [field for field in fields if not field.isidentifier()]:
        raise ValueError(f"not a template: {{{wrong[0]}}} is no name of a field")
    return text


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
    `vlm/datasets/zero_shot_metadata.py` instead.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Also the folder of its results."""
    about: str
    dataset: str
    """A card in `data/`, or a path, also one from this card's folder."""
    split: str
    kind: Annotated[str, Named(TASK_TYPES)]
    prompts: tuple[Annotated[str, AfterValidator(_template)], ...] = ()
    max_tokens: PositiveInt = 40
    system: str = ""
    """A system turn before every question."""
    in_context: InContext | None = None
    """Examples that are shown before each question (kinds `vqa`, `choice`, `caption`)."""
    generation: Generation = Generation()
    for_models: dict[str, ForModel] = Field(default_factory=dict)
    """By a pattern of model names (`*smolvlm*`, in any case): what is otherwise for these; the first that fits."""
    judge: Judge | None = None
    """What judges the replies beside the protocol (kinds `vqa`, `dialogue`)."""
    all_right: dict[str, str] = Field(default_factory=dict)
    """Figure -> key of `meta`: the share of groups that agree in it whose questions are all right (kind `vqa`)."""
    protocol: Annotated[str, Named(PROTOCOLS)] = "exact"
    """How an answer is compared with the annotators' (kind `vqa`)."""
    answer: Literal["as_said", "short"] = "as_said"
    """How an answer is read from a reply: whole, or its first line in lower case without a final period."""
    sampling: Sampling | None = None
    """Which frames of a clip the model is shown; None leaves it to the model's card."""
    reader: Literal["mmmu", "vlmevalkit"] = "mmmu"
    """Whose rule finds the option that a reply names (kind `choice`)."""
    unreadable: Literal["wrong", "guess"] = "wrong"
    """What a reply that names no option counts as: MMMU takes an option at random (kind `choice`)."""
    circular: bool = False
    """Ask every rotation of the options and count a question only if all are right (MMBench; kind `choice`)."""
    queries: PositiveInt = 300
    """How many captions are searched for (kind `rerank`): each costs `top` readings of the language model."""
    top: PositiveInt = 10
    """The best of a search that are looked at again (kind `rerank`)."""
    category: str | None = None
    """The key of an example's `meta` by which figures are also given apart (not of `OWN_CATEGORIES`)."""
    train_split: str = "train"
    """What is learned from (kinds `probe` and `few_shot`)."""
    shots: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 4, 16)
    """Pictures of each class (kind `few_shot`)."""
    draws: PositiveInt = 5
    """How many random choices of them the figures are the mean of (kind `few_shot`)."""
    groups: tuple[str, ...] = ()
    """Names under which `--tasks` takes several benchmarks at once."""
    published: tuple[Published, ...] = Field(default=())

    @field_validator("category")
    @classmethod
    def _is_given_apart(cls, category: str | None, info: ValidationInfo) -> str | None:
        if category is not None and (kind := info.data.get("kind")) in OWN_CATEGORIES:
            raise ValueError(f"kind {kind} has categories of its own")
        return category

    @model_validator(mode="after")
    def _fits(self) -> BenchmarkCard:
        for key, kinds in ASKED_OF.items():
            if getattr(self, key) and self.kind in NEEDS and self.kind not in kinds:
                raise ValueError(f"{key}: kind {self.kind} takes none; expected kind {' or '.join(kinds)}")
        for pattern, other in self.for_models.items():
            if other.prompts is not None and len(other.prompts) != len(self.prompts):
                got = f"got {len(other.prompts)}"
                raise ValueError(f"for_models.{pattern}.prompts: expected {len(self.prompts)}, as the card has, {got}")
        return self

    def for_model(self, name: str) -> BenchmarkCard:
        """The card as a model of this name is asked."""
        for pattern, other in self.for_models.items():
            if fnmatch(name.lower(), pattern.lower()):
                return self.model_copy(update={key: getattr(other, key) for key in other.model_fields_set})
        return self

    @field_validator("prompts", mode="before")
    @classmethod
    def _named(cls, prompts: Any) -> Any:
        return named_list(prompts) if isinstance(prompts, str) else prompts


def load_card(name_or_path: str) -> BenchmarkCard:
    """A card by its name, which is its file's too, or by a path."""
    path = assets.find_card("eval", name_or_path, "benchmark")
    card = config.parse(BenchmarkCard, config.read_yaml(path), str(path))
    if wrong := _name_fault(card.name, path, name_or_path):
        raise BadInput(f"{path}: {wrong}")
    return card.model_copy(update={"dataset": _beside(card.dataset, path)})


def card_faults(name_or_path: str) -> list[str]:
    """All that is wrong with a card, and with what it says of its data set; a line each, each with the file's name."""
    try:
        path = assets.find_card("eval", name_or_path, "benchmark")
        data = config.read_yaml(path)
    except BadInput as error:
        return [str(error)]
    found = config.faults(BenchmarkCard, data)
    if isinstance(data, dict):
        found += [wrong] if (wrong := _name_fault(data.get("name"), path, name_or_path)) else []
        found += _dataset_faults(data, path)
    return [f"{path}: {'; '.join(found)}"] if found else []


def _name_fault(name: Any, path: Path, asked: str) -> str:
    if assets.is_path(asked) or name == path.stem or not isinstance(name, str):
        return ""
    return f"key name: expected {path.stem}, as the file is called, got {name}"


def _dataset_faults(data: dict[str, Any], path: Path) -> list[str]:
    """Whether there is such a data set, with such splits."""
    if not isinstance(name := data.get("dataset"), str):
        return []
    try:
        dataset = load_dataset(_beside(name, path))
    except BadInput as error:
        return [f"key dataset: {error}"]
    wanted = {"split": data.get("split")}
    if data.get("kind") in LEARNS:
        wanted["train_split"] = data.get("train_split", "train")
    if isinstance(shown := data.get("in_context"), dict):
        wanted["in_context.split"] = shown.get("split", "train")
    return [
        f"key {key}: dataset {dataset.name} has no split {split!r}; it has {', '.join(dataset.splits)}"
        for key, split in wanted.items()
        if isinstance(split, str) and split not in dataset.splits
    ]


def _beside(dataset: str, path: Path) -> str:
    """A data set's name, or the path of its card, which may lie beside the benchmark's."""
    beside = path.parent / dataset
    return str(beside) if beside.suffix in (".yaml", ".yml") and beside.is_file() else dataset
