"""Published tower files to timm's names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vlm.errors import BadInput

# Names inside a transformers DINOv2 export -> timm's; `*` is the layer.
_DINOV2_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    "encoder.layer.*.norm1.weight": "blocks.*.norm1.weight",
    "encoder.layer.*.norm1.bias": "blocks.*.norm1.bias",
    "encoder.layer.*.norm2.weight": "blocks.*.norm2.weight",
    "encoder.layer.*.norm2.bias": "blocks.*.norm2.bias",
    "encoder.layer.*.attention.output.dense.weight": "blocks.*.attn.proj.weight",
    "encoder.layer.*.attention.output.dense.bias": "blocks.*.attn.proj.bias",
    "encoder.layer.*.layer_scale1.lambda1": "blocks.*.ls1.gamma",
    "encoder.layer.*.layer_scale2.lambda1": "blocks.*.ls2.gamma",
    "encoder.layer.*.mlp.fc1.weight": "blocks.*.mlp.fc1.weight",
    "encoder.layer.*.mlp.fc1.bias": "blocks.*.mlp.fc1.bias",
    "encoder.layer.*.mlp.fc2.weight": "blocks.*.mlp.fc2.weight",
    "encoder.layer.*.mlp.fc2.bias": "blocks.*.mlp.fc2.bias",
}
_QKV = "encoder.layer.*.attention.attention.{}.{}"


def read_dinov2_onnx(path: Path, prefix: str = "backbone.") -> dict[str, Tensor]:
    """The network of DINOv2's shape inside an ONNX export of a transformers model, under timm's names, float32.

    The export folds `x @ W.T` into anonymous `MatMul` initialisers, found by the name of their node, and the position
    table into two: one of the CLS token, one of the 37 x 37 patches. Nothing of the graph is run. Raises `BadInput`
    where a tensor is missing.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError) as error:
        raise BadInput(f"{path}: not an ONNX file: {error}") from None
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def tensor_of(name: str) -> Tensor:
        if name not in stored:
            raise BadInput(f"{path}: expected a tensor {name!r}, found none")
        try:
            return torch.from_numpy(numpy_helper.to_array(stored[name]).copy()).float()
        except (ValueError, TypeError) as error:
            raise BadInput(f"{path}: tensor {name!r} is damaged: {error}") from None

    named = {name.removeprefix(prefix): name for name in stored if name.startswith(prefix)}
    transposed = {}
    anonymous: dict[int, str] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name in stored]
        if not inputs:
            continue
        if node.op_type == "MatMul":
            key = node.name.removeprefix("/" + prefix.replace(".", "/")).removesuffix("/MatMul").replace("/", ".")
            transposed[key + ".weight"] = inputs[0]
        for name in inputs:
            shape = tuple(stored[name].dims)
            if len(shape) == 3 and shape[0] == 1 and not name.startswith(prefix):
                anonymous[shape[1]] = name

    def weight(name: str) -> Tensor:
        return tensor_of(transposed[name]).T.contiguous() if name in transposed else tensor_of(named.get(name, name))

    layers = len([name for name in named if name.endswith("layer_scale1.lambda1")])
    state = {}
    for theirs, ours in _DINOV2_NAMES.items():
        for layer in range(layers) if "*" in theirs else [0]:
            state[ours.replace("*", str(layer))] = weight(theirs.replace("*", str(layer)))
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = [weight(_QKV.format(part, kind).replace("*", str(layer))) for part in ("query", "key", "value")]
            state[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    patches = max(anonymous, default=0)
    if patches < 2 or 1 not in anonymous:
        raise BadInput(f"{path}: expected the position table of the CLS token and of the patches, found {anonymous}")
    state["pos_embed"] = torch.cat([tensor_of(anonymous[1]), tensor_of(anonymous[patches])], dim=1)
    return state
