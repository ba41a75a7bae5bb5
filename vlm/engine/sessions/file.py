"""The file of a session: one safetensors file that is there whole or not at all, and is checked before it is believed.

Beside the tensors its metadata has the format and its version, and a sha256 over all the rest.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlm.errors import BadInput
from vlm.files import atomic_path, is_lfs_pointer
from vlm.weights.tensors import no_safetensors

FORMAT, VERSION = "vlm session", "1"
"""The version goes up where the form of a file changes, and where models are computed otherwise than before."""
HEADER_BYTES = 8 * 2**20
"""Of the names and shapes of tensors, and the metadata; they take many times that in memory."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raises `OSError` where it cannot be written; then `path` is as it was."""
    about = {**metadata, "format": FORMAT, "version": VERSION}
    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    about["sha256"] = _sum(about, plain)
    try:
        with atomic_path(path) as temporary:
            save_file(plain, temporary, metadata=about)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written: {' '.join(str(error).split())[:200]}") from None


def about(path: Path, most: int) -> dict[str, str]:
    """The metadata of a file of at most so many bytes, its own beside.

    Raises `FileNotFoundError` where there is none, `BadInput` for what is no session.
    """
    with _opened(path, most) as file:
        return _metadata(file, path)


def read(path: Path, most: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata, and all tensors in memory. Raises as `about`, and for a file that was damaged."""
    with _opened(path, most) as file:
        metadata = _metadata(file, path)
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # not a dict
    wanted = metadata.pop("sha256", "")
    if (found := _sum(metadata, tensors)) != wanted:
        raise BadInput(f"{path}: was damaged: expected sha256 {wanted[:12]}, got {found[:12]}")
    return metadata, tensors


def _opened(path: Path, most: int) -> Any:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path}: expected a session, got no regular file")
    if status.st_size > most:
        raise BadInput(f"{path}: expected a session of at most {most} bytes, got {status.st_size}")
    try:
        with path.open("rb") as raw:
            header = int.from_bytes(raw.read(8), "little")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadInput(f"{path}: expected a session that can be read, got: {error.strerror}") from None
    if header > HEADER_BYTES and not is_lfs_pointer(path):
        raise BadInput(f"{path}: not a session: expected a header of at most {HEADER_BYTES} bytes, got {header}")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not a session: {no_safetensors(path, error)}") from None


def _metadata(file: Any, path: Path) -> dict[str, str]:
    metadata: dict[str, str] = file.metadata() or {}
    for name, expected in (("format", FORMAT), ("version", VERSION)):
        if (got := metadata.get(name, "none")) != expected:
            raise BadInput(f"{path}: not a session: expected {name} {expected!r}, got {got[:80]!r}")
    return metadata


def _sum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
