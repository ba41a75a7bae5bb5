"""The llama family (SmolLM2 ...): Hugging Face names, and GGUF files of llama.cpp, to our own names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlm.errors import BadInput
from vlm.language.config import LanguageConfig

if TYPE_CHECKING:
    from gguf import GGUFReader

# llama.cpp's name of a tensor -> ours; `*` is the layer.
GGUF_NAMES = {
    "token_embd.weight": "embedding.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
    "blk.*.attn_norm.weight": "layers.*.attention_norm.weight",
    "blk.*.attn_q.weight": "layers.*.attention.q_proj.weight",
    "blk.*.attn_k.weight": "layers.*.attention.k_proj.weight",
    "blk.*.attn_v.weight": "layers.*.attention.v_proj.weight",
    "blk.*.attn_output.weight": "layers.*.attention.o_proj.weight",
    "blk.*.ffn_norm.weight": "layers.*.ffn_norm.weight",
    "blk.*.ffn_gate.weight": "layers.*.ffn.gate_proj.weight",
    "blk.*.ffn_up.weight": "layers.*.ffn.up_proj.weight",
    "blk.*.ffn_down.weight": "layers.*.ffn.down_proj.weight",
}


def read_gguf(path: Path) -> tuple[LanguageConfig, dict[str, Tensor]]:
    """A llama GGUF file as our config and float32 tensors under our names, dequantised.

    Raises `BadInput` where the architecture is another, or a tensor is unknown.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise BadInput(f"{path}: not a GGUF file, or a damaged one: {error}") from None
    architecture = _field(reader, "general.architecture", path)
    if architecture != "llama":
        raise BadInput(f"{path}: expected a GGUF file of architecture llama, got {architecture!r}")
    heads = int(_field(reader, "llama.attention.head_count", path))
    kv_heads = int(_field(reader, "llama.attention.head_count_kv", path))
    width = int(_field(reader, "llama.embedding_length", path))
    state = {}
    for tensor in reader.tensors:
        name = _rename(tensor.name, path)
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        if name.endswith("q_proj.weight"):
            weight = _unpermute(weight, heads)
        elif name.endswith("k_proj.weight"):
            weight = _unpermute(weight, kv_heads)
        state[name] = weight
    cfg = LanguageConfig(
        vocab_size=state["embedding.weight"].shape[0],
        width=width,
        layers=int(_field(reader, "llama.block_count", path)),
        heads=heads,
        kv_heads=kv_heads,
        head_width=int(_field(reader, "llama.rope.dimension_count", path)),
        ffn_width=int(_field(reader, "llama.feed_forward_length", path)),
        max_positions=int(_field(reader, "llama.context_length", path)),
        rope_theta=float(_field(reader, "llama.rope.freq_base", path)),
        norm_eps=round(float(_field(reader, "llama.attention.layer_norm_rms_epsilon", path)), 9),
        tied_embeddings="lm_head.weight" not in state,
    )
    return cfg, state


def _field(reader: GGUFReader, name: str, path: Path) -> str | int | float:
    field = reader.get_field(name)
    if field is None:
        raise BadInput(f"{path}: GGUF key {name} is missing")
    return field.contents()


def _rename(name: str, path: Path) -> str:
    parts = name.split(".")
    layer = parts[1] if parts[0] == "blk" else ""
    pattern = ".".join(["blk", "*", *parts[2:]]) if layer else name
    if pattern not in GGUF_NAMES:
        raise BadInput(f"{path}: unknown tensor {name!r}")
    return GGUF_NAMES[pattern].replace("*", layer)


def _unpermute(weight: Tensor, heads: int) -> Tensor:
    """llama.cpp rotates neighbouring rows; we rotate halves of a head."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
