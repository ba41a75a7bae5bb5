"""A SmolVLM or Idefics3 folder: `config.json`, safetensors, processor and tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vlm.conversation.messages import IMAGE
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.published import reply_ends, special_token
from vlm.families.siglip import tower_source
from vlm.families.smolvlm import prompt
from vlm.families.smolvlm.config import read_configs
from vlm.families.smolvlm.processor import SmolVLMProcessor
from vlm.language.checkpoints.families import find
from vlm.language.checkpoints.folder import read_model
from vlm.models.arrangements import FlatArrangement
from vlm.models.assembled import Assembled
from vlm.models.tensor_names import Shape, TensorNames
from vlm.models.vision_language import VisionLanguageModel
from vlm.weights.tensors import open_tensors

VISION, CONNECTOR, WORDS = "model.vision_model.", "model.connector.modality_projection.", "model.text_model."


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Assembled:
    """The model and its processor. Raises `BadInput` for a config we cannot follow and tensors that do not fit it."""
    fields, processing = read_configs(folder)
    added = [prompt.AROUND, IMAGE, prompt.END]
    tokenizer = TextTokenizer(folder / "tokenizer.json", reads_control=True, added=added)
    pad = tokenizer.control(special_token(folder, "pad_token") or prompt.END)
    processor = SmolVLMProcessor(processing, tokenizer, pad, reply_ends(folder))
    sizes = fields.vision_config.tower(f"{folder / 'config.json'}: vision_config")
    stored = open_tensors(folder)
    rest = {name: tensor for name, tensor in stored.items() if name.startswith((VISION, CONNECTOR))}
    words = {_short(name): tensor for name, tensor in stored.items() if name not in rest}
    saying = {"rms_norm_eps": 1e-5, **fields.text_config, "tie_word_embeddings": fields.tie_word_embeddings}
    names = TensorNames(find(saying.get("model_type", "llama")), _full, _source)
    language = read_model(saying, names.family, words, folder, full=_full, dtype=dtype)
    if fields.image_token_id != processor.image_token:
        got = f"{fields.image_token_id}, but the tokenizer has {processor.image_token}"
        raise BadInput(f"{folder / 'config.json'}: key image_token_id: {got}")
    places_N = position_of_patch(sizes.grid)
    with torch.device("meta"):
        model = VisionLanguageModel(
            sizes.build(places_N),
            fields.projector().build(sizes.width, language.cfg.width),
            FlatArrangement(),
            language,
            image_token=processor.image_token,
        )
    names.fill(model, rest, folder, "smolvlm", dtype)
    return Assembled(folder.name, "smolvlm", model.eval(), processor, folder=folder, names=names)


def position_of_patch(grid: int) -> Tensor:
    """Which learned position each patch of a square gets, `[grid * grid]`.

    They are looked up by the patch's place as a share of the side, in float32: for some grids rounding sends patches
    to a neighbour's.
    """
    edges = torch.arange(1 / grid, 1.0, 1 / grid)
    shares = (torch.arange(grid, dtype=torch.float32) * (1.0 / torch.tensor(grid))).clamp(max=1.0 - 1e-6)
    places = torch.bucketize(shares, edges, right=True)
    return (places[:, None] * grid + places).flatten()


def _source(name: str, shape: Shape) -> dict[str, Shape]:
    """The tensors of theirs that make one of ours."""
    if name.startswith("projector."):
        return {CONNECTOR + name.removeprefix("projector."): shape}
    return tower_source(name, shape, VISION)


def _short(name: str) -> str:
    return name.replace(WORDS, "model.", 1) if name.startswith(WORDS) else name


def _full(name: str) -> str:
    return name.replace("model.", WORDS, 1) if name.startswith("model.") else name
