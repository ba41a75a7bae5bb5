"""Tensors in safetensors files, sharded or not: read without copying the file, written shard by shard."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlm.errors import BadInput
from vlm.files import atomic_path, atomic_write, is_lfs_pointer
from vlm.weights.exact import refuse_mismatches, refuse_nan

INDEX = "model.safetensors.index.json"
SCALE = "_scale_inv"
"""Suffix of the tensor that holds the scales of an 8-bit one."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not read yet. On a CPU `get_tensor` maps the file into memory."""

    file: Any
    name: str
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    def read(self) -> Tensor:
        """Raises `BadInput` where it holds NaN."""
        return refuse_nan(self.file.get_tensor(self.name), self.name, str(self.path))


def no_safetensors(path: Path, error: Exception) -> str:
    """Why a file does not open as one of tensors."""
    if is_lfs_pointer(path):
        return "expected safetensors, got a git-lfs pointer (run `git lfs pull`)"
    return f"not a safetensors file: {' '.join(str(error).split())[:120]}"


def open_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder's safetensors files, by name.

    Raises `BadInput` where there is no file, one the index names is missing, or one is damaged.
    """
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadInput(f"{folder / INDEX}: not an index of safetensors files: {error}") from None
        if outside := [name for name in names if Path(name).name != name]:
            raise BadInput(f"{folder / INDEX}: expected names of files beside it, got {outside[0]!r}")
        paths = [folder / name for name in names]
    elif (folder / "model.safetensors").is_file():
        paths = [folder / "model.safetensors"]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise BadInput(f"{folder}: no safetensors files in it")
    tensors: dict[str, Stored] = {}
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{path}: no such file, but {INDEX} names it")
        try:
            file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path}: {no_safetensors(path, error)}") from None
        tensors |= {name: Stored(file, name, path) for name in file.keys()}  # noqa: SIM118  # not a dict
    return tensors


def check_shapes(
    expected: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, Stored],
    path: Path,
    family: str,
    *,
    optional: Container[str] = (),
) -> None:
    """Raise `BadInput` naming the tensors of a folder that are missing, unknown (and not `optional`) or of another
    shape than its config says."""
    found = {name: tensor.shape for name, tensor in stored.items()}
    refuse_mismatches(expected, found, f"{path}: tensors do not fit its config of {family}", optional=optional)


def dequantise(weight: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """float32 of a matrix in 8-bit floats with one scale a block (DeepSeek-V3, arXiv:2412.19437, section 3.3).

    Raises `ValueError` where there are not as many scales as blocks.
    """
    rows, columns = weight.shape
    expected = (-(-rows // block[0]), -(-columns // block[1]))
    if tuple(scale.shape) != expected:
        raise ValueError(f"expected scales of shape {expected}, got {tuple(scale.shape)}")
    full = scale.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return weight.float() * full


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, shard_size: str | int) -> None:
    """`model.safetensors`, or shards with their index; takes the place of the safetensors the folder had."""
    from huggingface_hub import split_torch_state_dict_into_shards

    plan = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=shard_size)
    stale = {*folder.glob("model*.safetensors"), folder / INDEX} - {folder / name for name in plan.filename_to_tensors}
    for filename, names in plan.filename_to_tensors.items():
        with atomic_path(folder / filename) as temporary:
            save_file({name: tensors[name].contiguous() for name in names}, temporary, metadata={"format": "pt"})
    for path in stale:
        path.unlink(missing_ok=True)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        atomic_write(folder / INDEX, json.dumps(index, indent=2))
