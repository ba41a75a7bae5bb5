"""A published folder, or a repository of the hub, by its `model_type`."""

from __future__ import annotations

from pathlib import Path

import torch

from vlm.errors import BadInput, unknown
from vlm.families import deepseek_vl2, llava_onevision, smolvlm
from vlm.families.published import Published
from vlm.files import read_json


def load_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Published:
    """The model in a folder of `config.json`, safetensors, tokenizer and processor, in evaluation mode.

    Raises `BadInput` for a family that is not here, and where the folder's files do not fit together.
    """
    families = {
        "deepseek_vl_v2": deepseek_vl2.load,
        "idefics3": smolvlm.load,
        "llava_onevision": llava_onevision.load,
        "smolvlm": smolvlm.load,
    }
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in families:
        raise BadInput(f"{folder / 'config.json'}: {unknown('vision-language model family', str(kind), families)}")
    return families[kind](folder, dtype)
