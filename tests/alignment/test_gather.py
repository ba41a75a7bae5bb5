"""Two processes with half of the batch each give the gradients of one with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.nn import functional as F

from vlm.alignment.gather import gather
from vlm.alignment.losses import clip_loss, siglip_loss


def _loss(tower: nn.Module, rows_BD: Tensor, words_BD: Tensor) -> Tensor:
    image = gather(F.normalize(tower(rows_BD), dim=-1))
    text = gather(words_BD)
    batch = image, text, torch.arange(len(image)), torch.tensor(4.0)
    return clip_loss(*batch) + siglip_loss(*batch, torch.tensor(-2.0))


def _parts() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(5, 4).double(), torch.randn(6, 5).double(), F.normalize(torch.randn(6, 4).double(), dim=-1)


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    tower, rows, words = _parts()
    own = slice(3 * rank, 3 * rank + 3)
    _loss(tower, rows[own], words[own]).backward()
    for p in tower.parameters():
        dist.all_reduce(p.grad)
        p.grad /= 2
    own = slice(0, 2) if rank == 0 else slice(2, 6)  # shares of different length
    uneven = nn.Linear(5, 4).double()
    uneven.load_state_dict(tower.state_dict())
    _loss(uneven, rows[own], words[own]).backward()
    for p in uneven.parameters():
        dist.all_reduce(p.grad)
        p.grad /= 2
    if rank == 0:
        torch.save(
            [[p.grad for p in tower.parameters()], [p.grad for p in uneven.parameters()]], f"{folder}/gradients.pt"
        )
    dist.destroy_process_group()


@pytest.mark.process
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_process, args=(str(tmp_path),), nprocs=2)
    even, uneven = torch.load(tmp_path / "gradients.pt", weights_only=True)
    tower, rows, words = _parts()
    _loss(tower, rows, words).backward()
    for gradients in (even, uneven):
        for found, p in zip(gradients, tower.parameters(), strict=True):
            torch.testing.assert_close(found, p.grad, atol=1e-12, rtol=1e-9)
