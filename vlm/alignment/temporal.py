"""From the vectors of a clip's frames to one vector of the clip.

B clips, F frames, D shared width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TemporalPool(nn.Module):
    """The mean of the frames, and what a transformer layer over the frames in their order adds to it.

    After CLIP4Clip's sequential transformer (arXiv:2104.08860, section 3.3). The addition begins at zero, so a model
    that has seen pictures only starts with the mean of its frames.
    """

    def __init__(self, width: int, frames: int, heads: int = 4):
        super().__init__()
        self.place_FD = nn.Parameter(torch.zeros(frames, width))
        nn.init.normal_(self.place_FD, std=0.02)
        self.layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, frames_BFD: Tensor) -> Tensor:
        """Unit vectors `[B, D]` of clips of at most as many frames as there are places."""
        states_BFD = self.layer(frames_BFD + self.place_FD[: frames_BFD.shape[1]])
        return F.normalize((frames_BFD + self.out(states_BFD)).mean(dim=1), dim=-1)


def shuffled_orders(clips: int, frames: int, generator: torch.Generator | None = None) -> Tensor:
    """For each clip another order of its frames, `[B, F]`: every frame moves.

    A turn of the circle of a random order: no frame stays where it was, as long as there are two.
    """
    order_BF = torch.rand(clips, frames, generator=generator).argsort(dim=1)
    return torch.empty_like(order_BF).scatter_(1, order_BF, order_BF.roll(1, dims=1))
