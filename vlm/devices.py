"""Where a model runs and in which type: names that a user gives, as torch's."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from vlm.errors import BadInput, unknown

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def device_of(name: str | torch.device | None = None) -> torch.device:
    """`auto` (or `None`) is CUDA where there is one, then MPS, then the CPU.

    Raises `BadInput` for what is no device, or none of this machine.
    """
    import torch

    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps") from None
    there = {"cpu": True, "meta": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise BadInput(f"device {device}: there is none on this machine; expected one of its own, or auto")
    return device


def dtype_of(name: str | torch.dtype | None = None) -> torch.dtype:
    """`auto` (or `None`) is float32. Raises `BadInput` for another name than a float's of 16 or 32 bits."""
    import torch

    if name is None or name == "auto":
        return torch.float32
    short = str(name).removeprefix("torch.")
    if short not in DTYPES:
        raise unknown("dtype", short, DTYPES)
    return getattr(torch, short)


def cpu() -> tuple[str, set[str]]:
    """The processor's name, and what it can do as Linux calls it; nothing of that elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    said = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    return said.get("model name") or platform.machine(), set(said.get("flags", said.get("Features", "")).split())
