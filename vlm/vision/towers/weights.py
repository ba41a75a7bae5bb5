"""Weights of a checkpoint's folder: safetensors, and nothing that can run."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlm.errors import BadInput
from vlm.weights.exact import refuse_nan
from vlm.weights.tensors import no_safetensors


def read_weights(folder: Path, stem: str = "model") -> dict[str, Tensor]:
    """Every tensor of `<stem>.safetensors`, or of its shards, as float32.

    Raises `BadInput` where there is none: pickled weights can run code and are not read.
    """
    files = sorted(folder.glob(f"{stem}.safetensors")) or sorted(folder.glob(f"{stem}-*-of-*.safetensors"))
    if not files:
        others = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
        got = f"{', '.join(others)} (pickled weights can run code: refused)" if others else "none"
        raise BadInput(f"{folder}: expected {stem}.safetensors, got {got}")
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            state |= {name: refuse_nan(tensor, name, str(path)) for name, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{path}: {no_safetensors(path, error)}") from None
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
