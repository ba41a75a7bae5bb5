"""What a router did with a text: load, entropy, dead experts, and which experts pictures and words use.

L mixture layers, T tokens, k chosen experts a token, E routed experts.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlm.files import atomic_write

if TYPE_CHECKING:
    from vlm.language.mixture.moe import Router


@dataclass(frozen=True)
class RoutingStatistics:
    """Counts of calls, and what follows from them, a row a layer."""

    calls_LE: Tensor
    """How often each expert was called."""
    kinds: dict[str, Tensor] = field(default_factory=dict)
    """The same `[L, E]` of each kind of token, by its name."""
    tokens: int = 0
    """How many tokens there were."""

    def __add__(self, other: RoutingStatistics) -> RoutingStatistics:
        """Both texts together."""
        none_LE = torch.zeros_like(self.calls_LE)
        names = {**self.kinds, **other.kinds}
        kinds = {name: self.kinds.get(name, none_LE) + other.kinds.get(name, none_LE) for name in names}
        return RoutingStatistics(self.calls_LE + other.calls_LE, kinds, self.tokens + other.tokens)

    @property
    def experts_a_token_L(self) -> Tensor:
        """How many experts a token called in the mean: k, or fewer with adaptive routing."""
        return self.calls_LE.sum(1) / max(self.tokens, 1)

    @property
    def load_LE(self) -> Tensor:
        """Calls against the mean of the layer's experts: 1 is a fair share."""
        return self.calls_LE / self.calls_LE.mean(1, keepdim=True).clamp(min=1e-9)

    @property
    def imbalance_L(self) -> Tensor:
        """The busiest expert's load against the mean, 1 to E."""
        return self.load_LE.amax(1)

    @property
    def entropy_L(self) -> Tensor:
        """Entropy of the calls against the most there can be: 1 is even, 0 is one expert alone."""
        shares_LE = self.calls_LE / self.calls_LE.sum(1, keepdim=True).clamp(min=1)
        experts = torch.tensor(max(shares_LE.shape[1], 2), dtype=shares_LE.dtype)
        return -torch.xlogy(shares_LE, shares_LE).sum(1) / experts.log()

    @property
    def dead_LE(self) -> Tensor:
        """True where an expert was never called."""
        return self.calls_LE == 0

    def figures(self) -> dict[str, list[float]]:
        """For a log, a number a layer: the busiest expert's load, the entropy of the calls, the number of dead experts
        and, where tokens were counted, the experts a token called; nothing of a model without mixtures."""
        if not len(self.calls_LE):
            return {}
        figures = {"load": self.imbalance_L, "entropy": self.entropy_L, "dead": self.dead_LE.sum(1).double()}
        if self.tokens:
            figures["experts"] = self.experts_a_token_L
        return {name: figure_L.tolist() for name, figure_L in figures.items()}

    def preference_LE(self, kind: str) -> Tensor:
        """How much more a kind of token calls an expert than all tokens do: 1 is as often; 0 also for dead ones."""
        calls_LE = self.kinds[kind]
        mine_LE = calls_LE / calls_LE.sum(1, keepdim=True).clamp(min=1)
        all_LE = self.calls_LE / self.calls_LE.sum(1, keepdim=True).clamp(min=1)
        return torch.where(self.dead_LE, 0.0, mine_LE / all_LE.where(~self.dead_LE, 1.0))


def routing_statistics(
    chosen_LTk: Tensor, experts: int, kinds: Mapping[str, Tensor] | None = None, mask_T: Tensor | None = None
) -> RoutingStatistics:
    """Statistics of the experts `chosen_LTk` by T tokens in each layer.

    `kinds` names kinds of tokens by a mask `[T]` each, such as image and text; tokens where `mask_T` is false
    (padding) count nowhere, nor do slots of expert -1 (not used).
    """
    every_T = torch.ones(chosen_LTk.shape[1], dtype=torch.bool, device=chosen_LTk.device)
    mask_T = every_T if mask_T is None else mask_T
    by_kind = {name: _calls(chosen_LTk, experts, kind_T & mask_T) for name, kind_T in (kinds or {}).items()}
    return RoutingStatistics(_calls(chosen_LTk, experts, mask_T), by_kind, int(mask_T.sum()))


def step_statistics(routers: Sequence[Router], tokens: int = 0) -> RoutingStatistics:
    """Statistics of what routers of one model counted in training since their last `balance`."""
    loads = [router.load_E.double() for router in routers]
    return RoutingStatistics(torch.stack(loads) if loads else torch.zeros(0, 0), tokens=tokens)


def _calls(chosen_LTk: Tensor, experts: int, mask_T: Tensor) -> Tensor:
    """`[L, E]` in float64, so that the counts of many batches add up exactly."""
    chosen_LR = chosen_LTk[:, mask_T].flatten(1)
    calls_LE = torch.zeros(len(chosen_LR), experts, dtype=torch.float64, device=chosen_LR.device)
    return calls_LE.scatter_add_(1, chosen_LR.clamp(min=0), (chosen_LR >= 0).to(calls_LE.dtype))


@contextmanager
def recorded(routers: Iterable[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """While inside, the experts `[T, k]` that each router chooses, a list of calls a router.

    `torch.stack([torch.cat(calls) for calls in seen])` is what `routing_statistics` takes. A router's output begins
    with gates and chosen experts.
    """
    routers = list(routers)
    seen: list[list[Tensor]] = [[] for _ in routers]

    def hook(number: int, output: tuple[Tensor, ...]) -> None:
        seen[number].append(output[1].detach().flatten(0, -2))

    handles = [
        router.register_forward_hook(lambda _module, _inputs, output, number=number: hook(number, output))
        for number, router in enumerate(routers)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def draw(statistics: RoutingStatistics, path: Path) -> None:
    """A PNG: the load of each layer's experts, and beside it what each kind of token prefers.

    The middle colour is a fair share (or as often as all tokens), the ends 0 and twice that or more; dead experts are
    black.
    """
    from matplotlib.figure import Figure

    panels = {"load, 1 is a fair share": statistics.load_LE}
    panels |= {f"{kind} against all tokens": statistics.preference_LE(kind) for kind in statistics.kinds}
    layers, experts = statistics.calls_LE.shape
    wide, high = min(3 + 0.12 * experts, 10), min(1.5 + 0.25 * layers, 10)
    rows, columns = (1, len(panels)) if layers > experts else (len(panels), 1)
    figure = Figure(figsize=(wide * columns, high * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (title, values_LE) in zip(axes, panels.items(), strict=True):
        shown = values_LE.masked_fill(statistics.dead_LE, torch.nan).cpu().numpy()
        axis.set_facecolor("black")
        image = axis.imshow(shown, cmap="coolwarm", vmin=0, vmax=2, aspect="auto", interpolation="nearest")
        axis.set(title=title, xlabel="expert", ylabel="mixture layer")
        axis.locator_params(integer=True)
    figure.colorbar(image, ax=list(axes), extend="max")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    atomic_write(path, data.getvalue())
