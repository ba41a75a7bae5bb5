"""From a card to a model that runs: parts in place, upcycled, trained weights on top."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlm.alignment.text_encoder import TextEncoder
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.language.upcycle import upcycled
from vlm.models.card import ModelCard
from vlm.models.parts import pull
from vlm.models.trained import apply_trained, read_trained
from vlm.models.vision_language import VisionLanguageModel
from vlm.vision.towers import load_into
from vlm.weights.tensors import check_shapes, open_tensors


@dataclass(frozen=True)
class Assembled:
    """A model with what turns text into its input."""

    card: ModelCard
    model: VisionLanguageModel
    tokenizer: TextTokenizer
    text_encoder: TextEncoder | None
    """The sentence encoder whose states the text head reads; `None` where the language model's are read."""

    def named(self) -> dict[str, Tensor]:
        """Every parameter and buffer by the name that trained weights have: the text encoder's follow its name."""
        found: dict[str, Tensor] = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        if self.text_encoder is not None:
            found |= {f"text_encoder.{name}": p for name, p in self.text_encoder.named_parameters()}
        return found


def assemble(
    card: ModelCard,
    *,
    trained: bool = True,
    offline: bool = False,
    report: Callable[[str], None] | None = None,
) -> Assembled:
    """The model of `card` in float32, in evaluation mode; `trained=False` leaves the project's weights out."""
    folders = pull(card, offline=offline, report=report)
    tower = load_into(card.model.tower, folders["tower"])
    language = load_language(card.model.language, folders["language"])
    model = VisionLanguageModel(card.model, tower, language)
    if "projector" in folders:
        load_projector(model.projector, folders["projector"], card.model.projector.kind)
    text_encoder = None
    if card.model.alignment.text == "encoder":
        text_encoder = TextEncoder(folders["text"]).eval()
        if text_encoder.width != card.model.text_width:
            raise BadInput(
                f"model {card.name}: text_width {card.model.text_width}, the encoder has {text_encoder.width}"
            )
    parts = Assembled(card, model.eval(), TextTokenizer(folders["language"] / "tokenizer.json"), text_encoder)
    weights = card.trained_weights() if trained else None
    if weights is not None:
        apply_trained(parts.named(), read_trained(weights), str(weights))
    gc.collect()
    return parts


def load_projector(projector: nn.Module, folder: Path, kind: str) -> None:
    """A converted projector; its last matrix, `proj`, may be missing, as it belongs to one language model.

    Raises `BadInput` naming the tensors that do not fit the card's.
    """
    stored = open_tensors(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}
    check_shapes({n: s for n, s in shapes.items() if n in stored or not n.startswith("proj.")}, stored, folder, kind)
    projector.load_state_dict({name: tensor.read().float() for name, tensor in stored.items()}, strict=False)


def load_language(cfg: LanguageConfig, folder: Path) -> LanguageModel:
    """A converted dense decoder, upcycled where `cfg` has a mixture.

    Raises `BadInput` where the card's architecture is not the file's.
    """
    published = LanguageConfig.model_validate_json((folder / "config.json").read_text())
    dense = cfg.model_copy(update={"moe": None})
    if published != dense:
        keys = [key for key in LanguageConfig.model_fields if getattr(published, key) != getattr(dense, key)]
        raise BadInput(f"{folder}: the card's language model differs from the file's in {', '.join(keys)}")
    with torch.device("meta"):
        language = LanguageModel(dense)
    state = load_file(folder / "model.safetensors")
    if dense.tied_embeddings:
        state["lm_head.weight"] = state["embedding.weight"]
    language.load_state_dict(state, assign=True)
    if dense.tied_embeddings:
        language.lm_head.weight = language.embedding.weight
    if cfg.moe is None:
        return language
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the routed experts' start, so that a card gives the same untrained model everywhere
        return upcycled(language, cfg.moe)
