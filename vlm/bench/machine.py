"""The machine that figures were measured on: some ratios hold on one kind of CPU alone."""

from __future__ import annotations

import os

from vlm.devices import cpu

# Flags of Linux, as people call what they stand for.
_UNITS = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx512_bf16": "AVX-512 bfloat16", "avx2": "AVX2"}


def machine() -> str:
    """The CPU by name, its cores, the units that products run on, and the version of torch."""
    import torch

    name, flags = cpu()
    units = [unit for flag, unit in _UNITS.items() if flag in flags]
    units += [] if "amx_int8" in flags or not flags else ["no matrix units"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join([name, f"{cores} cores", *units, f"torch {torch.__version__}"])
