"""A folder that `Model.save` wrote of a card's model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from vlm.alignment.text_encoder import TextEncoder
from vlm.conversation.tokenizer import TextTokenizer
from vlm.language.decoder import LanguageModel
from vlm.models.assemble import Space
from vlm.models.assembled import Assembled
from vlm.models.card_processor import CardProcessor
from vlm.models.identity import saved_fields
from vlm.models.vision_language import cast_parameters
from vlm.weights.tensors import check_shapes, open_tensors


@torch.no_grad()
def load_space(folder: Path, sides: Collection[str]) -> Space:
    """The shared space alone, without projector and language model; of `sides` "images" brings the tower, "texts" the
    text encoder."""
    cfg = saved_fields(folder).model
    assert cfg.alignment is not None
    assert cfg.text_width is not None
    tower = cfg.tower.build() if "images" in sides else None
    encoder = TextEncoder(folder / "text", weights=False) if "texts" in sides else None
    space = Space(cfg.alignment.build(cfg.tower.width, cfg.text_width), tower, encoder).eval()
    own = space.state_dict()
    begins = tuple({name.split(".")[0] + "." for name in own})
    stored = {name: tensor for name, tensor in open_tensors(folder).items() if name.startswith(begins)}
    check_shapes({name: tuple(tensor.shape) for name, tensor in own.items()}, stored, folder, "vlm")
    for name, tensor in own.items():
        tensor.copy_(stored[name].read())
    return space


@torch.no_grad()
def load(folder: Path, dtype: torch.dtype = torch.float32) -> Assembled:
    """The model and its processor. Raises `BadInput` naming the tensors that do not fit the config."""
    fields = saved_fields(folder)
    cfg = fields.model
    tower = cfg.tower.build()
    model = cfg.build(tower, LanguageModel(cfg.language))
    encoder = None
    if cfg.alignment is not None and cfg.alignment.text == "encoder":
        encoder = TextEncoder(folder / "text", weights=False).eval()
    own = dict(model.state_dict())
    if cfg.language.tied_embeddings:
        own.pop("language.lm_head.weight")
    if encoder is not None:
        own |= {f"text_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    stored = open_tensors(folder)
    check_shapes({name: tuple(tensor.shape) for name, tensor in own.items()}, stored, folder, "vlm")
    for name, tensor in own.items():
        tensor.copy_(stored[name].read())
    for module in (model, encoder):
        if module is not None and dtype != torch.float32:
            cast_parameters(module, dtype)
    processor = CardProcessor(cfg, TextTokenizer(folder / "tokenizer.json"), tower.preprocess, fields.video.times)
    return Assembled(fields.name, "vlm", model.eval(), processor, encoder, fields.video, fields.card(), folder)
