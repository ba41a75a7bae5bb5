"""A shared space on a published model: two heads over its tower and its language model, kept beside its files.

S width of the space.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from vlm import config
from vlm.alignment.dual_encoder import AlignmentConfig
from vlm.errors import BadInput
from vlm.files import atomic_write, read_json
from vlm.models.assembled import Assembled

FOLDER = "space"
"""Below the model's own."""


def add_space(parts: Assembled, cfg: AlignmentConfig) -> None:
    """Two heads that start at random. Raises `BadInput` for a model with a space, and a text side it does not have."""
    model = parts.model
    if model.alignment is not None:
        raise BadInput(f"model {parts.name}: expected one without a shared space, got one that has it")
    if model.tower is None:
        raise BadInput(f"model {parts.name}: expected one that sees, got one that reads texts only")
    if cfg.text != "language":
        raise BadInput(
            f"model {parts.name}: key text: expected language, as it has no sentence encoder, got {cfg.text}"
        )
    model.alignment = cfg.build(model.tower.cfg.width, model.language.cfg.width).to(model.device)


def save_space(parts: Assembled, cfg: AlignmentConfig, folder: Path) -> None:
    assert parts.model.alignment is not None
    atomic_write(folder / FOLDER / "config.json", cfg.model_dump_json(indent=2) + "\n")
    state = {name: tensor.contiguous().cpu() for name, tensor in parts.model.alignment.state_dict().items()}
    save_file(state, folder / FOLDER / "model.safetensors")


def read_space(parts: Assembled, folder: Path) -> None:
    """Give the model the space its folder holds, where it holds one."""
    where = folder / FOLDER / "config.json"
    if not where.is_file():
        return
    add_space(parts, config.parse(AlignmentConfig, read_json(where), str(where)))
    assert parts.model.alignment is not None
    try:
        parts.model.alignment.load_state_dict(load_file(folder / FOLDER / "model.safetensors"))
    except (OSError, RuntimeError) as error:
        raise BadInput(
            f"{folder / FOLDER}: not the heads of its config: {' '.join(str(error).split())[:200]}"
        ) from None
