"""Low-rank adapters (arXiv:2106.09685) on a decoder, through peft."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

from vlm.errors import VlmError

M = TypeVar("M", bound=nn.Module)


def add_lora(model: nn.Module, rank: int, alpha: float, targets: Iterable[str]) -> None:
    """Wrap the linears named in `targets`; the function stays the same until the adapters are trained."""
    try:
        import peft
    except ImportError:
        raise VlmError("training with LoRA needs peft: pip install 'vlm[train]'") from None
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # annotated int, used as a factor
        target_modules=list(targets),
    )
    peft.inject_adapter_in_model(config, model)


def portable(name: str, tensor: Tensor, scaling: float) -> tuple[str, Tensor]:
    """peft's name of a low-rank matrix as ours, `WEIGHT.lora_A` or `WEIGHT.lora_B`, the scale folded into B."""
    for kind in ("lora_A", "lora_B"):
        if f".{kind}." in name:
            base = name.split(f".{kind}.")[0]
            return f"{base}.weight.{kind}", tensor * scaling if kind == "lora_B" else tensor
    return name, tensor


def merged(model: M) -> M:
    """The model without adapters, their products added to the weights: itself where it has none, else a copy."""
    if not any(".lora_" in name for name, _ in model.named_parameters()):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    copy = deepcopy(model)
    for name, module in list(copy.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(copy.get_submodule(parent), last, module.get_base_layer())
    return copy
