"""What the state of a conversation holds for: one model with its weights, and the kernels of one machine.

Keys and values are the same to the bit only where all of this is. A file says what it was saved with, field by field,
so that one that is refused can be told why.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from vlm.devices import cpu
from vlm.media.open import Media
from vlm.models.trained import weights_hash

if TYPE_CHECKING:
    from vlm.engine.engine import Engine
    from vlm.models.processor import Processor

MODEL = ("configuration", "weights", "processor", "dtype", "chunk")
MACHINE = ("torch", "device", "cpu", "instructions", "threads", "rows", "environment")
UNITS = ("avx", "amx", "fma", "sse4", "asimd", "sve")
"""What the names of instructions begin with that products use."""
VARIABLES = re.compile(r"(MKL|ONEDNN|DNNL|ATEN)_\w+")
"""Of the environment: they choose kernels."""
PROBE = "What is it? 1 2 3, \u00e4 \u5b57"


def identity_of(engine: Engine, threads: int) -> dict[str, str]:
    """Of an engine with so many threads, a text for each name of `MODEL` and `MACHINE`. All weights are read: about
    a second a gigabyte."""
    model = engine.model
    configuration = re.sub(r" at 0x[0-9a-f]+", "", repr(model)) + model.language.cfg.model_dump_json()
    name, flags = cpu()
    device = model.device
    variables = sorted(f"{key}={value}" for key, value in os.environ.items() if VARIABLES.fullmatch(key))
    return {
        "configuration": _hash(configuration),
        "weights": weights_hash([model]),
        "processor": _hash(_made(engine.processor, model.tower is not None)),
        "dtype": str(model.dtype).removeprefix("torch."),
        "chunk": str(engine.settings.chunk),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": name,
        "instructions": " ".join([torch.backends.cpu.get_cpu_capability(), *sorted(f for f in flags if _unit(f))]),
        "threads": str(threads),
        "rows": repr(tuple(engine.reading.rows)),
        "environment": " ".join(variables),
    }


def difference(saved: Mapping[str, str], own: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Where they differ in these names, in words; `None` where they do not."""
    found = [name for name in names if saved.get(name) != own[name]]
    said = [f"{name} {_short(saved.get(name))}, here {_short(own[name])}" for name in found]
    return "; ".join(said) if said else None


def _made(processor: Processor, sees: bool) -> list[Any]:
    """What a processor makes of one conversation: what it depends on, libraries among it, is seen by that."""
    row = Image.linear_gradient("L").resize((97, 61))
    media = [Media((Image.merge("RGB", (row, row.transpose(Image.Transpose.ROTATE_180), row)),))] if sees else []
    shown = [{"type": "image", "image": item} for item in media]
    prompt = processor.read([{"role": "user", "content": [*shown, {"type": "text", "text": PROBE}]}])
    seen = zip(prompt.media, prompt.layouts, strict=True)
    pixels = [processor.pixels(item, layout) for item, layout in seen]
    sums = [hashlib.sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in pixels]
    return [type(processor).__name__, prompt.ids, prompt.layouts, sums, [tuple(one.shape) for one in pixels]]


def _unit(flag: str) -> bool:
    return flag.startswith(UNITS)


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _short(text: str | None) -> str:
    if not text:
        return "none"
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else repr(text[:80])
