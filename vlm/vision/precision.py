"""Faster towers on a CPU: bfloat16 for any, INT8 for the plain ViTs of timm.

INT8 is static and for inference only. Weights have a scale a row, activations one a tensor, measured on a few
photographs; so a picture's vectors do not depend on what else is in its batch. Before that, channels that are large in
activations are made smaller and their weights larger (SmoothQuant, arXiv:2211.10438, equation 4, alpha 0.5), which
changes no product: norms and the values of an attention take the factors up. `int8_products.py` has the products, and
times which way this CPU does them faster. Attention itself and the cut into patches are bfloat16.

B images, T tokens, D width, E width of a product's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.errors import BadInput
from vlm.vision.int8_products import TINY, Product, Scale, as_bytes, fastest
from vlm.vision.tower import TowerInput, TowerOutput, VisionTower

PARTS = {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2"}
LAYER_SCALES = {"ls1", "ls2"}
PRODUCTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
GELU = {"gelu": "none", "gelu_tanh": "tanh"}
"""oneDNN's names of the two forms."""
SMOOTHING = 0.5
TOKENS = 4
"""Tokens are padded to a multiple: on 257, oneDNN's attention takes half as long again as on 260."""


class Bfloat16(VisionTower):
    """A copy of a tower with its weights and arithmetic in bfloat16; float32 in and out."""

    def __init__(self, tower: VisionTower):
        super().__init__(tower.cfg)
        self.inner = deepcopy(tower).bfloat16()

    def forward(self, pixels: TowerInput) -> TowerOutput:
        tokens_BND, pooled_BD = self.inner(pixels.bfloat16())
        return TowerOutput(tokens_BND.float(), pooled_BD.float())


@torch.inference_mode()
def int8(
    tower: VisionTower,
    photographs: Sequence[Image.Image],
    batch: int = 8,
    *,
    product: type[Product] | None = None,
) -> VisionTower:
    """A copy of `tower` whose blocks multiply in INT8, with the ranges that `photographs` need: a dozen will do.

    `product` is the way it multiplies, by default the faster one on this CPU; the copy's attribute `product` says
    which. Raises `BadInput` for a tower that is no plain ViT of timm or has another activation than GELU.
    """
    from timm.models.vision_transformer import VisionTransformer

    vit = getattr(tower, "vit", None)
    if not isinstance(vit, VisionTransformer) or not all(_is_plain(block) for block in vit.blocks):
        raise BadInput(f"tower {tower.cfg.name}: INT8 is for plain ViTs of timm")
    if tower.cfg.activation not in GELU:
        raise BadInput(
            f"tower {tower.cfg.name}: INT8 has the activations {', '.join(GELU)}, not {tower.cfg.activation}"
        )
    if not photographs:
        raise BadInput(f"tower {tower.cfg.name}: INT8 needs photographs to measure ranges on, got none")
    ranges = _ranges(tower, vit, photographs, batch)
    fast: Any = deepcopy(tower).eval()
    fc1 = fast.vit.blocks[0].mlp.fc1
    fast.product = product or fastest(fc1.in_features, fc1.out_features)
    form = GELU[tower.cfg.activation]
    blocks = [_Block(block, own, form, fast.product) for block, own in zip(fast.vit.blocks, ranges, strict=True)]
    fast.vit.blocks = _Blocks(*blocks)
    fast.vit.patch_embed.proj = _Bfloat16Product(fast.vit.patch_embed.proj)
    return fast


@dataclass
class _Range:
    """The least and the greatest value each channel of a product's input had."""

    low_D: Tensor
    high_D: Tensor

    def widen(self, x: Tensor) -> None:
        self.low_D = torch.minimum(self.low_D, x.flatten(0, -2).amin(0))
        self.high_D = torch.maximum(self.high_D, x.flatten(0, -2).amax(0))

    def smoothing(self, weight_ED: Tensor) -> Tensor:
        """What each channel is divided by and its weights are multiplied by."""
        largest_D = torch.maximum(self.low_D.abs(), self.high_D.abs()).clamp_min(TINY)
        factors_D = largest_D**SMOOTHING / weight_ED.abs().amax(0).clamp_min(TINY) ** (1 - SMOOTHING)
        return factors_D / factors_D.mean()

    def scale(self, smoothing_D: Tensor | float = 1.0) -> Scale:
        low, high = float((self.low_D / smoothing_D).min()), float((self.high_D / smoothing_D).max())
        step = max(max(high, 0.0) - min(low, 0.0), TINY) / 255
        return Scale(step, round(-min(low, 0.0) / step) - 128)

    def even_scale(self, smoothing_D: Tensor) -> Scale:
        """With zero at zero."""
        return Scale(max(float((torch.maximum(-self.low_D, self.high_D) / smoothing_D).max()), TINY) / 127, 0)


class _Bfloat16Product(nn.Module):
    def __init__(self, product: nn.Module):
        super().__init__()
        self.product = product.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x.to(torch.bfloat16)).float()


class _Blocks(nn.Sequential):
    """Blocks one after another, over tokens padded to a number that suits the kernels."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, width = x_BTD.shape
        padded = tokens + -tokens % TOKENS
        own_BTD = x_BTD.new_zeros(batch, padded, width)
        own_BTD[:, :tokens] = x_BTD
        mask_T = torch.zeros(padded, dtype=torch.bfloat16)
        mask_T[tokens:] = -torch.inf
        block: Any
        for block in self:
            own_BTD = block.onto(own_BTD, mask_T[None, None, None])
        return own_BTD[:, :tokens]


class _Block(nn.Module):
    """A block of timm: `x + scale(attn(norm(x)))`, then `x + scale(mlp(norm(x)))`."""

    def __init__(self, block: Any, ranges: dict[str, _Range], form: str, product: type[Product]):
        super().__init__()
        attn, mlp, self.form, self.heads = block.attn, block.mlp, form, block.attn.num_heads
        width = attn.proj.in_features

        proj_DD, proj_bias_D = _scaled(attn.proj, block.ls1)
        values_D = ranges["attn.proj"].smoothing(proj_DD)
        proj_scale = ranges["attn.proj"].even_scale(values_D)
        qkv_ED, qkv_bias_E = attn.qkv.weight.clone(), attn.qkv.bias.clone() if attn.qkv.bias is not None else None
        for part in (qkv_ED.T, qkv_bias_E):
            if part is not None:
                part[..., -width:] /= values_D * proj_scale.step  # values leave the attention as bytes' numbers
        inputs_D = ranges["attn.qkv"].smoothing(qkv_ED)
        scale = ranges["attn.qkv"].scale(inputs_D)
        self.norm1 = _to_bytes(block.norm1, inputs_D, scale)
        self.qkv = product(qkv_ED * inputs_D, qkv_bias_E, scale)
        self.proj = product(proj_DD * values_D, proj_bias_D, proj_scale)

        inputs_D = ranges["mlp.fc1"].smoothing(mlp.fc1.weight)
        scale = ranges["mlp.fc1"].scale(inputs_D)
        self.norm2 = _to_bytes(block.norm2, inputs_D, scale)
        self.fc1 = product(mlp.fc1.weight * inputs_D, mlp.fc1.bias, scale)
        self.fc2 = product(*_scaled(mlp.fc2, block.ls2), ranges["mlp.fc2"].scale())

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.onto(x_BTD.clone())

    def onto(self, x_BTD: Tensor, mask: Tensor | None = None) -> Tensor:
        """The block's output, written over its input: memory is what takes the time."""
        batch, tokens, width = x_BTD.shape
        x_ND = x_BTD.view(-1, width)
        qkv_NE = self.qkv(as_bytes(self.norm1(x_ND)), torch.bfloat16)
        q, k, v = qkv_NE.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed_BHTE = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed_ND = mixed_BHTE.transpose(1, 2).reshape(-1, width).float()
        x_ND = self.proj(as_bytes(mixed_ND), torch.float32, onto=x_ND)
        wide_NE = self.fc1.gelu(as_bytes(self.norm2(x_ND)), self.form, self.fc2.scale)
        return self.fc2(wide_NE, torch.float32, onto=x_ND).view(batch, tokens, width)


def _is_plain(block: nn.Module) -> bool:
    idle = (nn.Identity, nn.Dropout)
    parts = {name for name, part in block.named_modules() if not list(part.children()) and not isinstance(part, idle)}
    return parts - LAYER_SCALES - {"drop_path1", "drop_path2"} == PARTS


def _ranges(tower: VisionTower, vit: Any, photographs: Sequence[Image.Image], batch: int) -> list[dict[str, _Range]]:
    ranges: list[dict[str, _Range]] = []
    hooks = []

    def widen(seen: _Range) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, inputs: seen.widen(inputs[0])

    for block in vit.blocks:
        own = {name: block.get_submodule(name) for name in PRODUCTS}
        ranges.append({name: _Range(*torch.zeros(2, product.in_features)) for name, product in own.items()})
        hooks += [product.register_forward_pre_hook(widen(ranges[-1][name])) for name, product in own.items()]
    try:
        for start in range(0, len(photographs), batch):
            tower(tower.preprocess(photographs[start : start + batch]))
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def _to_bytes(norm: Any, factors_D: Tensor, scale: Scale) -> nn.LayerNorm:
    """The norm, smoothed, giving the numbers that bytes of `scale` round."""
    layer = nn.LayerNorm(len(factors_D), norm.eps)
    layer.weight.data = norm.weight / factors_D / scale.step
    layer.bias.data = norm.bias / factors_D / scale.step + scale.zero
    return layer


def _scaled(product: nn.Linear, layer_scale: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with the layer scale that follows."""
    gamma_E = getattr(layer_scale, "gamma", None)
    if gamma_E is None:
        return product.weight, product.bias
    return product.weight * gamma_E[:, None], None if product.bias is None else product.bias * gamma_E
