"""A published folder by the `model_type` its `config.json` names, through one registry of families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from vlm.errors import BadInput, unknown
from vlm.files import read_json
from vlm.language.checkpoints.families import FAMILIES as LANGUAGE_FAMILIES
from vlm.models.assemble import assemble
from vlm.models.assembled import Assembled
from vlm.models.card import ModelCard, load_card
from vlm.models.space import read_space
from vlm.registry import Registry
from vlm.weights import hub

Load: TypeAlias = Callable[[Path, torch.dtype], Assembled]
"""A folder, and the type of its weights -> the model with its processor, in evaluation mode."""

FAMILIES: Registry[Load] = Registry(
    "model family",
    {
        "deepseek_vl_v2": "vlm.families.deepseek_vl2:load",
        "idefics3": "vlm.families.smolvlm:load",
        "llava_onevision": "vlm.families.llava_onevision:load",
        "smolvlm": "vlm.families.smolvlm:load",
        "vlm": "vlm.families.saved_card:load",
    },
)
"""By the `model_type` of a folder's `config.json`."""


def load_folder(folder: Path, dtype: torch.dtype = torch.float32, multi_token: bool = False) -> Assembled:
    """The model in a folder of `config.json`, safetensors, tokenizer and processor, in evaluation mode. `multi_token`
    loads the heads of a language model alone that has some.

    Raises `BadInput` for a family that is not here, and where the folder's files do not fit together.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind in FAMILIES:
        parts = FAMILIES[kind](folder, dtype)
        read_space(parts, folder)
        return parts
    if kind in LANGUAGE_FAMILIES:
        from vlm.families import text_only

        return text_only.load(folder, dtype, multi_token)
    known = [*FAMILIES, *LANGUAGE_FAMILIES]
    raise BadInput(f"{folder / 'config.json'}: {unknown('model family', kind, known)}")


def load_parts(
    name: str,
    *,
    trained: bool = True,
    dtype: torch.dtype = torch.float32,
    fit: Callable[[ModelCard], ModelCard] | None = None,
    offline: bool = False,
    report: Callable[[str], None] | None = None,
) -> Assembled:
    """The parts of a model by the name or path of its card, its folder, or its repository on the hub.

    `trained=False` leaves out what this project trained of a card's, `fit` changes the card before it is assembled.
    Raises `BadInput` for an unknown name and for what cannot be loaded.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and hub.is_repository(name):
        folder = hub.snapshot(name, offline=offline, report=report)
    if folder.is_dir():
        return load_folder(folder, dtype)
    card = load_card(name)
    return assemble(card if fit is None else fit(card), trained=trained, offline=offline, report=report)
