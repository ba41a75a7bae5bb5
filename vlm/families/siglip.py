"""SigLIP towers inside published models: the keys of their config and the names of their tensors in transformers."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from vlm import config
from vlm.errors import BadInput
from vlm.families.published import PublishedConfig
from vlm.vision.siglip import SigLIPConfig

BLOCK = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}  # fmt: skip
"""timm's modules of a block, and theirs."""
REST = {
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}


class VisionFields(PublishedConfig):
    """`vision_config`."""

    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 3072
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    num_channels: Literal[3] = 3
    image_size: PositiveInt = 224
    patch_size: PositiveInt = 16
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    def tower(self, where: str) -> SigLIPConfig:
        """Raises `BadInput` for what is no SigLIP tower."""
        if self.layer_norm_eps != 1e-6:
            raise BadInput(f"{where}: key layer_norm_eps: expected 1e-06, got {self.layer_norm_eps}")
        sizes = {
            "image_size": self.image_size,
            "patch": self.patch_size,
            "width": self.hidden_size,
            "layers": self.num_hidden_layers,
            "heads": self.num_attention_heads,
            "mlp_width": self.intermediate_size,
        }
        return config.parse(SigLIPConfig, sizes, where)


def tower_source(name: str, shape: tuple[int, ...], prefix: str) -> dict[str, tuple[int, ...]]:
    """Their tensors, by name with its shape, that make one of our tower's; `prefix` is what their names begin with."""
    name = name.removeprefix("tower.vit.")
    if name == "pos_embed":
        return {f"{prefix}embeddings.position_embedding.weight": shape[1:]}
    if not name.startswith("blocks."):
        return {prefix + REST[name]: shape}
    _, layer, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    prefix = f"{prefix}encoder.layers.{layer}."
    if module != "attn.qkv":
        return {f"{prefix}{BLOCK[module]}.{kind}": shape}
    third = (shape[0] // 3, *shape[1:])
    return {f"{prefix}self_attn.{part}_proj.{kind}": third for part in "qkv"}
