"""Low-rank adapters as folders that peft reads and writes: `adapter_config.json` and `adapter_model.safetensors`.

Names of modules are those of transformers' own class of a family where there is one, so that
`PeftModel.from_pretrained` takes the folder; else those of the model's folder, and of a card ours. What a stage trained
whole (a projector) goes along as peft's `modules_to_save`. LoRA: arXiv:2106.09685.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlm.errors import BadInput, unknown
from vlm.files import atomic_folder, atomic_write, read_json
from vlm.models.assembled import Assembled
from vlm.models.identity import ADAPTER
from vlm.models.trained import apply_trained, read_trained

WEIGHTS, PREFIX = "adapter_model.safetensors", "base_model.model."
PAIR = ("lora_A", "lora_B")
NAME = re.compile(r"\^?(\w|-|\\?\.)+\$?")
"""What is matched with a module's name: its end, or all of it. A stranger's pattern may take for ever."""
REFUSED = ("use_dora", "fan_in_fan_out", "use_bdlora", "trainable_token_indices", "alora_invocation_tokens")
"""Keys that make an adapter something other than a product of two matrices."""


def save_adapter(parts: Assembled, state: dict[str, Tensor], folder: Path, base: str) -> int:
    """Write what a stage trained (`vlm.models.trained`) as an adapter of `base`; how many numbers it has.

    Raises `BadInput` where nothing of it is low-rank, or the folder has other things in it.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / ADAPTER).is_file():
        raise BadInput(f"{folder}: expected a new folder or one with an adapter, got one with other files")
    names = _theirs(parts)
    ranks: dict[str, int] = {}
    whole: list[str] = []
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        base_name, _, kind = name.rpartition(".")
        own = base_name if kind in PAIR else name
        if own not in names:
            raise BadInput(f"{name}: the model's format has no place for it in an adapter; expected a module's weight")
        module = names[own].rpartition(".")[0]
        if kind in PAIR:
            tensors[f"{PREFIX}{module}.{kind}.weight"] = tensor.float()
            ranks[module] = tensor.shape[PAIR.index(kind)]
        else:
            tensors[PREFIX + names[own]] = tensor.float()
            whole.append(module)
    if not ranks:
        raise BadInput("expected a run with low-rank adapters (objective.lora), got one without")
    rank = next(iter(ranks.values()))
    described: dict[str, Any] = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": rank,  # B has the scale already
        "lora_dropout": 0.0, "bias": "none", "target_modules": sorted(ranks),
        "modules_to_save": sorted(set(whole)) or None,
        "rank_pattern": {_exactly(module): own for module, own in ranks.items() if own != rank},
        "alpha_pattern": {_exactly(module): own for module, own in ranks.items() if own != rank},
    }  # fmt: skip
    with atomic_folder(folder) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / WEIGHTS)
        atomic_write(temporary / ADAPTER, json.dumps(described, indent=2) + "\n")
    return sum(tensor.numel() for tensor in tensors.values())


def apply_adapter(parts: Assembled, folder: Path) -> None:
    """Add an adapter's products to the model's weights, and put in what it has whole.

    Raises `BadInput` naming the key or the tensor of what is no such adapter, or does not fit; the model then is as it
    was.
    """
    where, fields = folder / ADAPTER, read_json(folder / ADAPTER)
    if fields.get("peft_type") != "LORA":
        raise BadInput(f"{where}: key peft_type: expected LORA, got {fields.get('peft_type')!r}")
    for key in REFUSED:
        if fields.get(key):
            raise BadInput(f"{where}: key {key}: expected none, got {fields[key]!r:.60}")
    if fields.get("bias", "none") != "none":
        raise BadInput(f"{where}: key bias: expected 'none', got {fields['bias']!r}")
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{folder}: no {WEIGHTS}; other formats are not read")
    ours = {theirs: own for own, theirs in _theirs(parts).items()}
    state: dict[str, Tensor] = {}
    for name, tensor in read_trained(folder / WEIGHTS).items():
        plain = name.removeprefix(PREFIX)
        module, _, kind = plain.removesuffix(".weight").rpartition(".")
        wanted = f"{module}.weight" if kind in PAIR else plain
        if wanted not in ours:
            raise BadInput(f"{folder / WEIGHTS}: {unknown('module', wanted, ours, 'the model has')}")
        own, scale = (f"{ours[wanted]}.{kind}" if kind in PAIR else ours[wanted]), 1.0
        if kind == "lora_B":
            scale = _scale(fields, module, tensor.shape[-1], str(where))
        state[own] = tensor.float() * scale
    apply_trained(parts.named(), state, str(folder))


def _scale(fields: dict[str, Any], module: str, found_rank: int, where: str) -> float:
    """What a product of a module is multiplied by."""

    def of(key: str, usual: Any) -> float:
        patterns = fields.get(key) or {}
        if odd := [pattern for pattern in patterns if not NAME.fullmatch(pattern)]:
            raise BadInput(f"{where}: key {key}: expected names of modules, got the pattern {odd[0][:60]!r}")
        fits = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
        found = next(fits, usual)
        if isinstance(found, bool) or not isinstance(found, int | float) or found <= 0:
            raise BadInput(f"{where}: key {key}: expected a positive number for {module}, got {found!r}")
        return float(found)

    rank = of("rank_pattern", fields.get("r"))
    alpha = of("alpha_pattern", fields.get("lora_alpha"))
    if rank != found_rank:
        raise BadInput(f"{where}: expected rank {rank:.0f} of {module}, got {found_rank}")
    return alpha / rank**0.5 if fields.get("use_rslora") else alpha / rank


def _exactly(module: str) -> str:
    return "^" + module.replace(".", r"\.")


def _theirs(parts: Assembled) -> dict[str, str]:
    """Our parameters that are one of theirs as they are, and what those are called."""
    if parts.names is None:
        return {name: name for name, _ in parts.model.named_parameters()}
    names, family, layers = parts.names, parts.names.family, parts.model.language.cfg.layers
    found: dict[str, str] = {}
    for name, tensor in parts.model.named_parameters():
        inner = name.removeprefix("language.")
        if inner != name:
            theirs = family.tensor(inner, layers)
            if "*" not in theirs:
                found[name] = names.full(theirs)
        elif not name.startswith("alignment."):
            sources = names.source(name, tuple(tensor.shape))
            if [*sources.values()] == [tuple(tensor.shape)]:
                found[name] = next(iter(sources))
    renamed = _in_transformers(parts.folder)
    return {own: renamed(theirs) for own, theirs in found.items()}


def _in_transformers(folder: Path | None) -> Any:
    """From a folder's name of a tensor to that of transformers' class; the same where it has none."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.conversion_mapping import WeightRenaming, get_model_conversion_mapping
    from transformers.core_model_loading import rename_source_key

    if folder is None:
        return lambda name: name
    try:
        cfg = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError):
        return lambda name: name
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        if type(cfg) in auto._model_mapping:
            with torch.device("meta"):
                model = auto.from_config(cfg)
            renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
            there = model.state_dict()
            return lambda name: rename_source_key(name, renamings, [], model.base_model_prefix, there)[0]
    return lambda name: name
