"""What was read of a prompt as tensors, and back with every shape held to the model's configuration.

T tokens of a chunk, S tokens that a layer keeps of it, a heads and w width of one kept tensor (`KVCache`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlm.errors import BadInput
from vlm.language.attention.kv_cache import Taken
from vlm.weights.exact import refuse_mismatches, refuse_nan

if TYPE_CHECKING:
    from vlm.language.config import LanguageConfig


def tensors_of(chunks: Sequence[tuple[Sequence[int], Taken]]) -> dict[str, Tensor]:
    """Of each chunk its `tokens [T]`, `dropped [layers]`, and what each layer keeps, `[1, a, S, w]`."""
    found: dict[str, Tensor] = {}
    for number, (tokens, taken) in enumerate(chunks):
        found[f"chunks.{number}.tokens"] = torch.tensor(tokens)
        found[f"chunks.{number}.dropped"] = torch.tensor(taken.dropped)
        found |= {_name(number, layer, part): one for layer, own in enumerate(taken.layers)
                  for part, one in enumerate(own)}  # fmt: skip
    return found


def chunks_of(
    tensors: Mapping[str, Tensor], cfg: LanguageConfig, like: Tensor, where: str
) -> list[tuple[tuple[int, ...], Taken]]:
    """The chunks there are, on the device of `like`. Raises `BadInput` for what this model's cache cannot have kept:
    another type, shape or number of tensors, NaN, a window of another length."""
    found: list[tuple[tuple[int, ...], Taken]] = []
    begin = 0
    layered: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        chunk, middle, _ = name.partition(".layers.")
        if middle:
            layered[chunk][name] = tensor
    while (tokens := tensors.get(f"chunks.{len(found)}.tokens")) is not None:
        number = len(found)
        dropped = tensors.get(f"chunks.{number}.dropped", tokens[:0])
        for one, name in ((tokens, "tokens"), (dropped, "dropped")):
            if one.dtype != torch.int64 or one.ndim != 1 or not len(one):
                raise BadInput(f"{where}: chunks.{number}.{name}: expected a row of whole numbers")
        if len(dropped) != cfg.layers:
            raise BadInput(f"{where}: chunks.{number}.dropped: expected {cfg.layers} layers, got {len(dropped)}")
        end = begin + len(tokens)
        kept = [_kept(cfg, layer, begin, end, int(one), where) for layer, one in enumerate(dropped)]
        shapes = {
            _name(number, layer, part): (1, heads, rows, width)
            for layer, rows in enumerate(kept)
            for part, (heads, width) in enumerate(cfg.attention.cached(cfg))
        }
        own = layered[f"chunks.{number}"]
        refuse_mismatches(shapes, {name: one.shape for name, one in own.items()}, where)
        for name, one in own.items():
            if one.dtype != like.dtype:
                raise BadInput(f"{where}: {name}: expected {like.dtype}, got {one.dtype}")
            refuse_nan(one, name, where)
        layers = [
            [own[_name(number, layer, part)].to(like.device) for part in range(len(cfg.attention.cached(cfg)))]
            for layer in range(cfg.layers)
        ]
        found.append((tuple(tokens.tolist()), Taken(begin, end, layers, dropped.tolist())))
        begin = end
    there = {f"chunks.{number}" for number in range(len(found))}
    if strange := [name for name in tensors if name.startswith("chunks.") and _chunk(name) not in there]:
        raise BadInput(f"{where}: expected {len(found)} chunks one behind the other, got {strange[0][:80]} too")
    return found


def _kept(cfg: LanguageConfig, layer: int, begin: int, end: int, dropped: int, where: str) -> int:
    """Tokens that a layer keeps of a chunk: all of it, or of a window all that is left, which is what it sees and at
    most two of it."""
    window = cfg.window_of(layer)
    if window is None:
        least = most = 0
    else:
        least, most = max(0, end - 2 * window), max(0, end - window + 1)
    if not least <= dropped <= most:
        raise BadInput(f"{where}: layer {layer}: expected {least} to {most} tokens dropped of {end}, got {dropped}")
    return end - begin if window is None else end - dropped


def _name(chunk: int, layer: int, part: int) -> str:
    return f"chunks.{chunk}.layers.{layer}.{part}"


def _chunk(name: str) -> str:
    return ".".join(name.split(".", 2)[:2])
