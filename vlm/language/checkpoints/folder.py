"""Language models from and to folders in the format of their families: `config.json` and safetensors.

E routed experts; a stacked weight `[E, ...]` of ours is E tensors of theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlm.errors import BadInput
from vlm.files import atomic_write, read_json
from vlm.language.checkpoints.families import find, of_config
from vlm.language.checkpoints.family import Family, Fields
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.weights.tensors import SCALE, Stored, check_shapes, dequantise, open_tensors, write_tensors


@dataclass(frozen=True)
class Slot:
    """Where a tensor of a checkpoint goes in our model."""

    ours: str
    expert: int | None
    """Its place in a stacked weight."""
    shape: tuple[int, ...]
    """In the checkpoint."""


def load(path: str | Path, *, dtype: torch.dtype = torch.float32, multi_token: bool = False) -> LanguageModel:
    """The language model in a folder of `config.json` and safetensors, or in a llama GGUF file, in evaluation mode.

    Weights that are stored in `dtype` are mapped from the file, not copied; 8-bit DeepSeek weights are expanded. The
    multi-token heads that checkpoints of DeepSeek-V3's kind hold are left out, unless `multi_token` asks for them.
    Raises `BadInput` for an unknown family, for a config the decoder cannot follow, for heads that are asked for where
    the config has none, and naming the tensors that are missing, unknown or of another shape.
    """
    path = Path(path).expanduser()
    if path.suffix == ".gguf":
        if multi_token:
            raise BadInput(f"{path}: a GGUF file holds no multi-token heads")
        from vlm.language.checkpoints.llama import read_gguf

        cfg, state = read_gguf(path)
        return _assemble(cfg, {name: tensor.to(dtype) for name, tensor in state.items()})
    fields = read_json(path / "config.json")
    family = of_config(fields, str(path / "config.json"))
    return read_model(fields, family, open_tensors(path), path, dtype=dtype, multi_token=multi_token)


def holds_heads(fields: Fields, family: Family, stored: Collection[str], where: str) -> bool:
    """Whether multi-token heads are among the tensors: some folders name them in the config alone."""
    cfg = family.read(family.parse(fields, where), where, multi_token=True)
    return cfg.multi_token > 0 and any(name.startswith(f"model.layers.{cfg.layers}.") for name in stored)


def read_model(
    fields: Fields,
    family: Family,
    stored: dict[str, Stored],
    path: Path,
    *,
    full: Callable[[str], str] = lambda name: name,
    dtype: torch.dtype = torch.float32,
    multi_token: bool = False,
) -> LanguageModel:
    """The model of a config and its tensors; as `load`. `full` gives the name that a tensor of the family has in the
    folder `path`, where the language model is a part of more."""
    where = str(path / "config.json")
    cfg = family.read(family.parse(fields, where), where, multi_token)
    if multi_token and not cfg.multi_token:
        raise BadInput(f"{where}: key {family.multi_token or 'num_nextn_predict_layers'}: the model has no such layers")
    model = _on_meta(cfg)
    slots = _slots(model, family)
    stored = _only_expected(stored, family, cfg)
    expected = {full(name): slot.shape for name, slot in slots.items()}
    optional = {full(name) for name in (*(name + SCALE for name in slots), *_copies(family, cfg))}
    check_shapes(expected, {full(name): t for name, t in stored.items()}, path, family.name, optional=optional)
    _check_copies(stored, path, family, cfg)
    rows, columns = (fields.get("quantization_config") or {}).get("weight_block_size") or (128, 128)
    precise = {name for name, _ in model.named_buffers()}  # routing biases stay float32
    state = {
        name: torch.empty(tensor.shape, dtype=torch.float32 if name in precise else dtype)
        for name, tensor in model.state_dict().items()
        if name.split(".")[-1].endswith(("_EFD", "_EDF"))
    }
    for name, slot in slots.items():
        tensor = _read(stored, name, (rows, columns), path)
        if slot.expert is not None:
            state[slot.ours][slot.expert].copy_(tensor)
        else:
            value = tensor[0] if _has_axis(slot.ours, family) else tensor
            state[slot.ours] = value.to(torch.float32 if slot.ours in precise else dtype)
    return _assemble(cfg, state)


def save(model: LanguageModel, path: str | Path, format: str, *, shard_size: str | int = "5GB") -> None:
    """Write a folder that transformers and vLLM load as `format` (the family's `model_type`).

    Safetensors the folder had are replaced. Raises `BadInput` naming what of the model the format cannot hold; then
    nothing is written.
    """
    path = Path(path).expanduser()
    family = find(format)
    fields = family.write(model.cfg)
    tensors = family_tensors(model, family)
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, path, shard_size)
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    described = {"architectures": [family.architecture], "model_type": family.name, "dtype": dtype, **fields}
    atomic_write(path / "config.json", json.dumps(described, indent=2) + "\n")


def family_tensors(model: LanguageModel, family: Family) -> dict[str, Tensor]:
    """Every tensor of the model by the name and in the shape that the family has it."""
    state = model.state_dict()
    tensors = {}
    for name, slot in _slots(model, family).items():
        tensor = state[slot.ours].detach()
        tensors[name] = (tensor if slot.expert is None else tensor[slot.expert]).view(slot.shape)
    for copy, source in _copies(family, model.cfg).items():
        tensors[copy] = tensors[source].clone()
    return tensors


def _on_meta(cfg: LanguageConfig) -> LanguageModel:
    with torch.device("meta"):
        return LanguageModel(cfg)


def _assemble(cfg: LanguageConfig, state: dict[str, Tensor]) -> LanguageModel:
    model = _on_meta(cfg)
    if cfg.tied_embeddings:
        state["lm_head.weight"] = state["embedding.weight"]
    model.load_state_dict(state, assign=True)
    if cfg.tied_embeddings:
        model.lm_head.weight = model.embedding.weight
    for router in model.routers():  # what is not part of a checkpoint
        for name, buffer in router.named_buffers():
            if buffer.is_meta:
                router.register_buffer(name, torch.zeros(buffer.shape), persistent=False)
    return model.eval()


def _slots(model: LanguageModel, family: Family) -> dict[str, Slot]:
    """Every tensor the family's checkpoint of this model holds, by its name there."""
    slots = {}
    for ours, tensor in model.state_dict().items():
        if ours == "lm_head.weight" and model.cfg.tied_embeddings:
            continue
        theirs, shape = family.tensor(ours, model.cfg.layers), tuple(tensor.shape)
        if ".experts.*." in theirs:
            for expert in range(shape[0]):
                slots[theirs.replace("*", str(expert))] = Slot(ours, expert, shape[1:])
        else:
            slots[theirs] = Slot(ours, None, (1, *shape) if _has_axis(ours, family) else shape)
    return slots


def _has_axis(ours: str, family: Family) -> bool:
    return any(ours.endswith(name) for name in family.leading_axis)


def _only_expected(stored: dict[str, Stored], family: Family, cfg: LanguageConfig) -> dict[str, Stored]:
    """Without what checkpoints of the family hold beside the decoder: tied heads, scales, empty tensors."""
    extra = [re.compile(pattern) for pattern in family.extra]

    def wanted(name: str) -> bool:
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        return not (
            any(pattern.fullmatch(name) for pattern in extra)
            or (family.multi_token and layer is not None and int(layer[1]) >= cfg.layers + cfg.multi_token)
            or (cfg.tied_embeddings and name == family.tensor("lm_head.weight", cfg.layers))
            or 0 in stored[name].shape
        )

    return {name: tensor for name, tensor in stored.items() if wanted(name)}


def _copies(family: Family, cfg: LanguageConfig) -> dict[str, str]:
    """What published multi-token layers repeat: the embedding and the output layer, by the copy's name."""
    output = "embedding.weight" if cfg.tied_embeddings else "lm_head.weight"
    shared = {"embed_tokens.weight": "embedding.weight", "shared_head.head.weight": output}
    layers = range(cfg.layers, cfg.layers + cfg.multi_token)
    return {
        f"model.layers.{n}.{copy}": family.tensor(ours, cfg.layers) for n in layers for copy, ours in shared.items()
    }


def _check_copies(stored: dict[str, Stored], path: Path, family: Family, cfg: LanguageConfig) -> None:
    for copy, source in _copies(family, cfg).items():
        if copy in stored and not torch.equal(stored[copy].read(), stored[source].read()):
            raise BadInput(f"{path}: tensor {copy} is not the {source} it should repeat")


def _read(stored: dict[str, Stored], name: str, block: tuple[int, int], path: Path) -> Tensor:
    """One tensor, expanded where it is stored in 8 bits."""
    tensor = stored[name].read()
    if tensor.dtype != torch.float8_e4m3fn:
        return tensor
    if name + SCALE not in stored:
        raise BadInput(f"{path}: 8-bit tensor {name} comes without {name}{SCALE}")
    try:
        return dequantise(tensor, stored[name + SCALE].read(), block)
    except ValueError as error:
        raise BadInput(f"{path}: {name}{SCALE}: {error}") from None
