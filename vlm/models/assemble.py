"""From a card to a model that runs: parts in place, upcycled, trained weights on top."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlm import config
from vlm.alignment.dual_encoder import DualHeads
from vlm.alignment.text_encoder import TextEncoder
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.files import read_json
from vlm.language.checkpoints.folder import load as load_published
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.language.upcycle import upcycled
from vlm.models.assembled import Assembled
from vlm.models.card import ModelCard
from vlm.models.card_processor import CardProcessor
from vlm.models.parts import pull
from vlm.models.trained import apply_trained, read_trained
from vlm.vision.tower import VisionTower
from vlm.vision.towers import load_into
from vlm.weights.tensors import check_shapes, open_tensors

Report = Callable[[str], None]


def assemble(
    card: ModelCard, *, trained: bool = True, offline: bool = False, report: Report | None = None
) -> Assembled:
    """The model of `card` in float32, in evaluation mode; `trained=False` leaves the project's weights out."""
    folders = pull(card, offline=offline, report=report)
    tower = load_into(card.model.tower, folders["tower"])
    model = card.model.build(tower, load_language(card.model.language, folders["language"])).eval()
    if "projector" in folders:
        load_projector(model.projector, folders["projector"], card.model.projector.kind)
    encoder = _text_encoder(card, folders)
    tokenizer = TextTokenizer(folders["language"] / "tokenizer.json")
    processor = CardProcessor(card.model, tokenizer, tower.preprocess, card.video.times)
    parts = Assembled(card.name, "vlm", model, processor, encoder, card.video, card)
    weights = card.trained_weights() if trained else None
    if weights is not None:
        apply_trained(parts.named(), read_trained(weights), str(weights))
    gc.collect()
    return parts


class Space(nn.Module):
    """What vectors need of a card's model: the heads, and the sides that are asked for."""

    def __init__(self, alignment: DualHeads, tower: VisionTower | None, text_encoder: TextEncoder | None):
        super().__init__()
        self.alignment, self.tower, self.text_encoder = alignment, tower, text_encoder


def has_own_text_side(card: ModelCard) -> bool:
    """Whether vectors of texts need no language model."""
    return card.model.alignment is not None and card.model.alignment.text == "encoder"


def assemble_space(
    card: ModelCard, sides: Iterable[str], *, offline: bool = False, report: Report | None = None
) -> Space:
    """The shared space of `card` without projector and language model; of `sides` "images" brings the tower, "texts"
    the text encoder. For cards with a text side of its own (`has_own_text_side`)."""
    cfg, sides = card.model, set(sides)
    assert cfg.alignment is not None
    assert cfg.text_width is not None
    wanted = {part for side, part in (("images", "tower"), ("texts", "text")) if side in sides}
    folders = pull(card, only=wanted, offline=offline, report=report)
    tower = load_into(cfg.tower, folders["tower"]) if "images" in sides else None
    encoder = _text_encoder(card, folders) if "texts" in sides else None
    space = Space(cfg.alignment.build(cfg.tower.width, cfg.text_width), tower, encoder).eval()
    if (weights := card.trained_weights()) is not None:
        named: dict[str, Tensor] = dict(space.named_parameters()) | dict(space.named_buffers())
        begins = tuple({name.split(".")[0] + "." for name in named})
        apply_trained(named, read_trained(weights, lambda name: name.startswith(begins)), str(weights))
    return space


def _text_encoder(card: ModelCard, folders: dict[str, Path]) -> TextEncoder | None:
    if not has_own_text_side(card):
        return None
    encoder = TextEncoder(folders["text"]).eval()
    if encoder.width != card.model.text_width:
        raise BadInput(f"model {card.name}: text_width {card.model.text_width}, the encoder has {encoder.width}")
    return encoder


def load_projector(projector: nn.Module, folder: Path, kind: str) -> None:
    """A converted projector; its last matrix, `proj`, may be missing, as it belongs to one language model.

    Raises `BadInput` naming the tensors that do not fit the card's.
    """
    stored = open_tensors(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}
    check_shapes({n: s for n, s in shapes.items() if n in stored or not n.startswith("proj.")}, stored, folder, kind)
    projector.load_state_dict({name: tensor.read().float() for name, tensor in stored.items()}, strict=False)


def load_language(cfg: LanguageConfig, folder: Path) -> LanguageModel:
    """A converted dense decoder, or a folder of any family that `vlm.language` reads; a dense one is upcycled where
    `cfg` has a mixture.

    Raises `BadInput` where the card's architecture is not the file's.
    """
    fields = read_json(folder / "config.json")
    language = load_published(folder) if "model_type" in fields else _converted(fields, folder)
    published = language.cfg
    wanted = cfg if published.moe is not None else cfg.model_copy(update={"moe": None})
    if published != wanted:
        keys = [key for key in LanguageConfig.model_fields if getattr(published, key) != getattr(wanted, key)]
        raise BadInput(f"{folder}: the card's language model differs from the file's in {', '.join(keys)}")
    if cfg.moe is None or published.moe is not None:
        return language
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the routed experts' start, so that a card gives the same untrained model everywhere
        return upcycled(language, cfg.moe)


def _converted(fields: dict[str, Any], folder: Path) -> LanguageModel:
    """A decoder under our own names, as `vlm.models.parts` converts it."""
    cfg = config.parse(LanguageConfig, fields, str(folder / "config.json"))
    with torch.device("meta"):
        language = LanguageModel(cfg)
    state = load_file(folder / "model.safetensors")
    if cfg.tied_embeddings:
        state["lm_head.weight"] = state["embedding.weight"]
    language.load_state_dict(state, assign=True)
    if cfg.tied_embeddings:
        language.lm_head.weight = language.embedding.weight
    return language
