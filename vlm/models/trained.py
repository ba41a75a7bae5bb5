"""The weights this project trains: read, merged into a model, compressed for shipping.

A file of trained weights holds some of a model's parameters under their names; `NAME.lora_A` `[r, in]` and
`NAME.lora_B` `[out, r]` are low-rank additions to the parameter NAME (the scale already in B); an int8 tensor NAME
comes with `NAME.scale`, one float a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlm.errors import BadInput
from vlm.files import atomic_path


def read_trained(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """The tensors of a file, of the names that are `wanted`, int8 ones expanded to float32, others as stored."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not a safetensors file: {error}") from None
    state = {}
    for name, tensor in stored.items():
        if name.endswith(".scale") and name.removesuffix(".scale") in stored:
            continue
        if tensor.dtype == torch.int8:
            if f"{name}.scale" not in stored:
                raise BadInput(f"{path}: int8 tensor {name!r} comes without {name}.scale")
            tensor = tensor.float() * stored[f"{name}.scale"].float()
        state[name] = tensor
    return state


@torch.no_grad()
def apply_trained(model: nn.Module | dict[str, Tensor], state: dict[str, Tensor], where: str) -> None:
    """Copy trained weights into `model` (or into tensors by name), then add low-rank pairs, whatever the order.

    Raises `BadInput` naming the tensor where a name or a shape does not fit; the model then is as it was.
    """
    targets: dict[str, Tensor] = {}
    targets |= model if isinstance(model, dict) else {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def target(name: str, update: Tensor) -> Tensor:
        if name not in targets:
            raise BadInput(f"{where}: trained tensor {name!r} has no place in the model")
        if targets[name].shape != update.shape:
            raise BadInput(f"{where}: {name}: expected shape {tuple(targets[name].shape)}, got {tuple(update.shape)}")
        return targets[name]

    values, additions = [], []
    for name, tensor in state.items():
        base, _, kind = name.rpartition(".")
        if kind not in ("lora_A", "lora_B"):
            values.append((target(name, tensor), tensor))
            continue
        down, up = state.get(f"{base}.lora_A"), state.get(f"{base}.lora_B")
        if down is None or up is None or down.shape[0] != up.shape[1]:
            raise BadInput(f"{where}: {base}: expected lora_A [r, in] and lora_B [out, r], of one rank r")
        if kind == "lora_A":
            update = up.float() @ down.float()
            additions.append((target(base, update), update))
    for weight, value in values:
        weight.copy_(value)
    for weight, update in additions:
        weight += update.to(weight.dtype)


def combine(earlier: dict[str, Tensor], later: dict[str, Tensor]) -> dict[str, Tensor]:
    """What two stages trained, as one state: the later value wins, low-rank additions of both add up.

    A later value of a whole parameter was trained from what the earlier stage made of it, so it replaces the earlier
    stage's low-rank addition too.
    """
    state = {n: t for n, t in earlier.items() if n.removesuffix(".lora_A").removesuffix(".lora_B") not in later} | later
    for name in earlier.keys() & later.keys():
        if name.endswith(".lora_A"):
            state[name] = torch.cat([earlier[name], later[name]], dim=0)
        elif name.endswith(".lora_B"):
            state[name] = torch.cat([earlier[name], later[name]], dim=1)
    return state


def compress(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with one scale a row (symmetric, round to nearest), the rest as bfloat16 or as it is.

    Routing biases stay float32, and so do scalars.
    """
    small = {}
    for name, tensor in state.items():
        if tensor.ndim >= 2:
            scale = tensor.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127
            small[name] = (tensor.float() / scale).round().clamp(-127, 127).to(torch.int8)
            small[f"{name}.scale"] = scale
        elif tensor.ndim == 0 or name.endswith("bias_E"):
            small[name] = tensor.float()
        else:
            small[name] = tensor.to(torch.bfloat16)
    return small


def weights_hash(modules: Sequence[nn.Module | None]) -> str:
    """sha256 over names, types, shapes and values of all tensors of the modules."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()) if module is not None else ():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_of(path: Path) -> Path:
    """The trained weights of a run's folder, of a checkpoint folder, or the file itself."""
    for candidate in (path / "weights.safetensors", path / "model.safetensors", path):
        if candidate.is_file():
            return candidate
    raise BadInput(f"{path}: no weights.safetensors or model.safetensors in it")


def release(runs: Sequence[Path], folder: Path) -> Path:
    """What several runs trained, combined in their order and compressed, as `folder/model.safetensors`."""
    state: dict[str, Tensor] = {}
    for run in runs:
        state = combine(state, read_trained(weights_of(run)))
    target = folder / "model.safetensors"
    with atomic_path(target) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in compress(state).items()}, temporary)
    return target
