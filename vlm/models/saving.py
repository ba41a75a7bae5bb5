"""A model as a folder: a published family's in its authors' format, a card's as one that `vlm.load` reads back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vlm.errors import BadInput, VlmError
from vlm.files import atomic_folder, atomic_write, read_json
from vlm.language.lora import merged
from vlm.models.assembled import Assembled
from vlm.models.space import save_space
from vlm.weights.tensors import open_tensors, write_tensors

KEPT = (".json", ".jinja", ".txt", ".model")
"""Suffixes of a published folder's files that are copied: configs, tokenizer, templates."""
CARD_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>\n"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What `vlm.conversation.template.Template` does, for readers of the folder."""


def save(parts: Assembled, folder: Path, shard_size: str | int = "5GB") -> Path:
    """Write the model as `folder`, whole or not at all; what was there goes.

    Raises `BadInput` where the folder holds other things than a model, or is the one the model was loaded from.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder, got a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: expected a new folder or one with a model, got one with other files")
    if parts.folder is not None and folder.exists() and folder.resolve() == parts.folder.resolve():
        raise BadInput(f"{folder}: expected another folder than the one the model was loaded from")
    with atomic_folder(folder) as temporary:
        if parts.names is not None:
            _published(parts, temporary, shard_size)
        else:
            _card(parts, temporary, shard_size)
    return folder


def _published(parts: Assembled, folder: Path, shard_size: str | int) -> None:
    """With what the folder held beside the tensors that the model has: a head it never runs, for one."""
    if parts.folder is None or parts.names is None or not parts.folder.is_dir():
        raise VlmError(f"model {parts.name}: the folder it was loaded from is gone: {parts.folder}")
    tensors = parts.names.tensors(merged(parts.model))
    unread = {name: stored for name, stored in open_tensors(parts.folder).items() if name not in tensors}
    tied = {name for name in unread if name.endswith(("lm_head.weight", "_scale_inv"))}
    tensors |= {name: stored.read().to(parts.model.dtype) for name, stored in unread.items() if name not in tied}
    for path in sorted(parts.folder.iterdir()):
        if path.is_file() and path.suffix in KEPT and not path.name.endswith(".safetensors.index.json"):
            shutil.copyfile(path, folder / path.name)
    fields = read_json(folder / "config.json")
    fields = {key: value for key, value in fields.items() if key != "quantization_config"}
    dtype = str(parts.model.dtype).removeprefix("torch.")
    atomic_write(folder / "config.json", json.dumps(_in_type(fields, dtype), indent=2) + "\n")
    write_tensors({name: tensor.cpu() for name, tensor in tensors.items()}, folder, shard_size)
    if parts.model.alignment is not None:
        save_space(parts, parts.model.alignment.cfg, folder)


def _in_type(fields: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config with the type of the weights, wherever it says one."""
    said = {
        key: _in_type(value, dtype) if isinstance(value, dict) else dtype if key in ("dtype", "torch_dtype") else value
        for key, value in fields.items()
    }
    return said


def _card(parts: Assembled, folder: Path, shard_size: str | int) -> None:
    card = parts.card
    if card is None:
        raise VlmError(f"model {parts.name}: neither a card's nor of a published family")
    tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in merged(parts.model).state_dict().items()}
    if card.model.language.tied_embeddings:
        tensors.pop("language.lm_head.weight", None)
    if parts.text_encoder is not None:
        own = parts.text_encoder.state_dict()
        tensors |= {f"text_encoder.{name}": tensor.detach() for name, tensor in own.items()}
        parts.text_encoder.save_files(folder / "text")
    described: Mapping[str, Any] = {
        "model_type": "vlm",
        "dtype": str(parts.model.dtype).removeprefix("torch."),
        **card.model_dump(mode="json", exclude={"parts", "trained"}),
    }
    atomic_write(folder / "config.json", json.dumps(described, indent=2) + "\n")
    atomic_write(folder / "tokenizer.json", parts.tokenizer.to_json())
    atomic_write(folder / "chat_template.jinja", CARD_TEMPLATE)
    atomic_write(folder / "processor_config.json", json.dumps(_pictures(parts), indent=2) + "\n")
    write_tensors({name: tensor.to("cpu") for name, tensor in tensors.items()}, folder, shard_size)


def _pictures(parts: Assembled) -> dict[str, Any]:
    assert parts.card is not None
    tower = parts.card.model.tower
    keys = ("image_size", "patch", "mean", "std", "interpolation")
    return {"processor_class": "vlm", **{key: getattr(tower, key) for key in keys}}
