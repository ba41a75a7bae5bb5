"""The one check of tensors against a model: what is missing, unknown or of another shape is named, never guessed."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from vlm.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMED = 5
"""Tensors of each kind that an error names; it counts all."""


def refuse_mismatches(
    expected: Mapping[str, Sequence[int]],
    found: Mapping[str, Sequence[int]],
    what: str,
    *,
    optional: Container[str] = (),
) -> None:
    """Compare shapes by name. Raises `BadInput` that begins with `what` and names the tensors that are missing, unknown
    (and not `optional`) or of another shape."""
    missing = [f"{name} {list(shape)}" for name, shape in expected.items() if name not in found]
    unknown = [f"{name} {list(s)}" for name, s in found.items() if name not in expected and name not in optional]
    other = [
        f"{name} expected {list(shape)}, got {list(found[name])}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    refuse(what, missing, unknown, other)


def refuse(what: str, missing: Sequence[str], unknown: Sequence[str], other: Sequence[str]) -> None:
    """Raise `BadInput` where any of the three lists names a tensor."""
    kinds = {"missing": missing, "unknown": unknown, "of another shape": other}
    said = [
        f"{len(names)} {kind}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
        for kind, names in kinds.items()
        if names
    ]
    if said:
        raise BadInput(f"{what}: {'; '.join(said)}")


def refuse_nan(tensor: Tensor, name: str, what: str) -> Tensor:
    """The tensor itself. Raises `BadInput` where it holds NaN: whatever a model gives is NaN then, and looks like an
    answer."""
    if tensor.is_floating_point() and tensor.element_size() > 1 and bool(tensor.isnan().any()):
        raise BadInput(f"{what}: expected numbers in tensor {name}, got NaN: a damaged file, or a training that failed")
    return tensor


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`. Raises `BadInput` as `refuse_mismatches`."""
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    refuse_mismatches(own, {name: tensor.shape for name, tensor in state.items()}, what)
    module.load_state_dict(dict(state))
