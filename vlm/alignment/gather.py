"""One contrastive batch over several processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from vlm.errors import VlmError


def gather(rows_BD: Tensor) -> Tensor:
    """The rows of all processes in order of rank, `[processes * B, D]`, with gradients to every process's own.

    Each process then computes the loss of the whole batch, and its gradients are averaged over processes, as
    `DistributedDataParallel` does: the sum over processes that the backward pass takes makes that the gradient of one
    process with the whole batch. Raises `VlmError` where processes have different numbers of rows. Without processes
    the rows are returned as they are.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows_BD
    counts = [torch.zeros(1, dtype=torch.long, device=rows_BD.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows_BD)], device=rows_BD.device))
    if len({int(count) for count in counts}) > 1:
        raise VlmError(f"gather: expected as many rows in each process, got {[int(count) for count in counts]}")
    gathered: Tensor = _Gather.apply(rows_BD)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor) -> Tensor:
        ctx.rows = len(rows_BD)
        parts = [torch.empty_like(rows_BD) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows_BD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)
