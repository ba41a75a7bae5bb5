"""Which parameters a stage trains: named by patterns of module paths, checked, and listed with their counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from vlm.errors import BadInput, unknown


class TrainableGroup(NamedTuple):
    """The parameters that one pattern matches."""

    pattern: str
    tensors: int
    parameters: int


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter's name is the pattern's, or lies below it: `projector` and `language.layers.*.attention` take
    everything inside; `*` stands for any part of a name."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def set_trainable(
    named: Mapping[str, Tensor], patterns: Sequence[str], optional: Iterable[str] = ()
) -> list[TrainableGroup]:
    """Make trainable the parameters that a pattern matches, and no others; returns what each pattern matched.

    Raises `BadInput` for a pattern that matches no parameter, unless it is `optional`.
    """
    parameters = {name: tensor for name, tensor in named.items() if isinstance(tensor, nn.Parameter)}
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    found = []
    for pattern in patterns:
        own = [parameter for name, parameter in parameters.items() if matches(name, pattern)]
        if not own and pattern not in optional:
            raise unknown("pattern of parameters", pattern, _paths(parameters), "the model has module paths, in all")
        for parameter in own:
            parameter.requires_grad_(True)
        found.append(TrainableGroup(pattern, len(own), sum(parameter.numel() for parameter in own)))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise BadInput(f"patterns {', '.join(patterns)}: expected some parameters that learn, got none")
    return found


def summary(found: Sequence[TrainableGroup], total: int) -> list[str]:
    """The table as lines: what is trainable, and how much of the model it is."""
    width = max(len(row.pattern) for row in found)
    lines = [f"  {row.pattern:<{width}}  {row.tensors:>5} tensors  {row.parameters:>12,} parameters" for row in found]
    learns = sum(row.parameters for row in found)
    return [f"learns {learns:,} of {total:,} parameters; the rest is frozen:", *lines]


def _paths(parameters: Mapping[str, object]) -> set[str]:
    """Every module path of the parameters."""
    return {".".join(name.split(".")[:depth]) for name in parameters for depth in range(1, name.count(".") + 1)}
