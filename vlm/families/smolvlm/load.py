"""A SmolVLM or Idefics3 folder: `config.json`, safetensors, processor and tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vlm.conversation.messages import IMAGE
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.published import Published, fill, reply_ends, special_token
from vlm.families.siglip import tower_source
from vlm.families.smolvlm import prompt
from vlm.families.smolvlm.config import read_configs
from vlm.families.smolvlm.processor import Processor
from vlm.language.checkpoints.families import find
from vlm.language.checkpoints.folder import read_model
from vlm.models.tiled import Arrangement, Grid, TiledModel
from vlm.weights.tensors import open_tensors

VISION, CONNECTOR, WORDS = "model.vision_model.", "model.connector.modality_projection.", "model.text_model."


class FlatArrangement(Arrangement):
    """Tile after tile, as the prompt has their slots."""

    def views(self, grid: Grid) -> int:
        """The tiles and the whole."""
        return grid[0] * grid[1] + 1

    def forward(self, visual_NMW: Tensor, grid: Grid) -> Tensor:
        return visual_NMW.flatten(0, 1)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Published:
    """The model and its processor. Raises `BadInput` for a config we cannot follow and tensors that do not fit it."""
    fields, processing = read_configs(folder)
    added = [prompt.AROUND, IMAGE, prompt.END]
    tokenizer = TextTokenizer(folder / "tokenizer.json", reads_control=True, added=added)
    processor = Processor(processing, tokenizer)
    pad = special_token(folder, "pad_token") or prompt.END
    where = f"{folder / 'config.json'}: vision_config"
    sizes = fields.vision_config.tower(where)
    stored = open_tensors(folder)
    rest = {name: tensor for name, tensor in stored.items() if name.startswith((VISION, CONNECTOR))}
    words = {_short(name): tensor for name, tensor in stored.items() if name not in rest}
    saying = {"rms_norm_eps": 1e-5, **fields.text_config, "tie_word_embeddings": fields.tie_word_embeddings}
    family = find(saying.get("model_type", "llama"))
    language = read_model(saying, family, words, folder, full=_full, dtype=dtype)
    if fields.image_token_id != processor.image_token:
        got = f"{fields.image_token_id}, but the tokenizer has {processor.image_token}"
        raise BadInput(f"{folder / 'config.json'}: key image_token_id: {got}")
    with torch.device("meta"):
        tower = sizes.build()
        model = TiledModel(
            tower,
            fields.projector().build(sizes.width, language.cfg.width),
            FlatArrangement(),
            language,
            image_token=processor.image_token,
            pad_token=tokenizer.control(pad),
        )
    fill(model, _source, rest, folder, "smolvlm", dtype)
    positions = tower.vit.pos_embed
    assert positions is not None
    positions.data = positions.data[:, position_of_patch(sizes.grid)]
    return Published(folder.name, model.eval(), processor, frozenset({processor.end, *reply_ends(folder)}))


def position_of_patch(grid: int) -> Tensor:
    """Which learned position each patch of a square gets, `[grid * grid]`.

    They are looked up by the patch's place as a share of the side, in float32: for some grids rounding sends patches
    to a neighbour's.
    """
    edges = torch.arange(1 / grid, 1.0, 1 / grid)
    shares = (torch.arange(grid, dtype=torch.float32) * (1.0 / torch.tensor(grid))).clamp(max=1.0 - 1e-6)
    places = torch.bucketize(shares, edges, right=True)
    return (places[:, None] * grid + places).flatten()


def _source(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The tensors of theirs that make one of ours."""
    if name.startswith("projector."):
        return {CONNECTOR + name.removeprefix("projector."): shape}
    return tower_source(name, shape, VISION)


def _short(name: str) -> str:
    return name.replace(WORDS, "model.", 1) if name.startswith(WORDS) else name


def _full(name: str) -> str:
    return name.replace("model.", WORDS, 1) if name.startswith("model.") else name
