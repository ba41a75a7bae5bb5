"""One contrastive batch over several processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def gather(rows_BD: Tensor) -> Tensor:
    """The rows of all processes in order of rank, `[processes * B, D]`, with gradients to every process's own.

    Each process then computes the loss of the whole batch, and its gradients are averaged over processes, as
    `DistributedDataParallel` does: the sum over processes that the backward pass takes makes that the gradient of one
    process with the whole batch. Without processes the rows are returned as they are.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows_BD
    found = [torch.zeros(1, dtype=torch.long, device=rows_BD.device) for _ in range(dist.get_world_size())]
    dist.all_gather(found, torch.tensor([len(rows_BD)], device=rows_BD.device))
    gathered: Tensor = _Gather.apply(rows_BD, [int(count) for count in found])
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor, counts: list[int]) -> Tensor:
        ctx.first, ctx.rows = sum(counts[: dist.get_rank()]), len(rows_BD)
        # As long as the longest: what is sent must be of one shape.
        padded_BD = rows_BD.new_zeros(max(counts), rows_BD.shape[1])
        padded_BD[: len(rows_BD)] = rows_BD
        parts = [torch.empty_like(padded_BD) for _ in counts]
        dist.all_gather(parts, padded_BD)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.narrow(0, ctx.first, ctx.rows), None
