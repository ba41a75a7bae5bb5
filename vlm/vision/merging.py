"""Fewer visual tokens without a weight: what looks alike becomes its mean, each token counting what went into it.

Within a frame by bipartite soft matching (ToMe, arXiv:2210.09461, section 3), along a clip by joining tokens of one
place in neighbouring frames. A ratio says how many are left, so their number is known before anything is computed.
Here it is the tokens themselves that are compared, and no attention is told of their sizes.

F frames, M tokens of a frame, T tokens of a clip, D width.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vlm.config import Config

Ratio = Annotated[float, Field(gt=0, le=1)]

ROUNDS = 8
"""One token in so many is merged before pairs are made anew, so that the nearest go first; ToMe takes a few a layer."""


class MergeConfig(Config):
    """Shares of the tokens that are left: `temporal` of a clip's, then `spatial` of a frame's."""

    spatial: Ratio = 1.0
    temporal: Ratio = 1.0

    @property
    def idle(self) -> bool:
        return self.spatial == self.temporal == 1

    def tokens(self, tokens: int, frames: int = 1) -> int:
        """What is left of a clip of so many frames of so many tokens each. A place of the picture keeps at least one
        token in time, a frame at least one in space."""
        if frames == 1 or self.temporal == 1:
            return frames * share(self.spatial, tokens)
        kept = max(tokens, share(self.temporal, frames * tokens))
        return max(min(frames, kept), share(self.spatial, kept))

    def lines(self, tokens: int, frames: int = 1) -> tuple[int, int]:
        """Tokens a line and lines, as a prompt shows them: a frame a line, but the whole clip on one where frames are
        merged, as then there is no saying beforehand which frame has how many."""
        lines = 1 if self.temporal < 1 else frames
        return self.tokens(tokens, frames) // lines, lines


class Tokens(NamedTuple):
    """A clip's tokens in the order of time, then row by row."""

    x_TD: Tensor
    size_T: Tensor
    """How many tokens each is the mean of."""
    place_T: Tensor
    """Where the first of these stood: frame * M + its place in the frame."""


def share(ratio: float, tokens: int) -> int:
    """That part of so many tokens, rounded up; a hair below a whole number is that number."""
    return max(1, ceil(ratio * tokens - 1e-9))


def merge(visual_FMD: Tensor, cfg: MergeConfig) -> Tokens:
    """The `cfg.tokens(M, F)` tokens left of a clip, or of a picture (F = 1). What is chosen carries no gradient."""
    frames, tokens = visual_FMD.shape[:2]
    places = torch.arange(frames * tokens, device=visual_FMD.device)
    clip = Tokens(visual_FMD.flatten(0, 1), visual_FMD.new_ones(len(places), dtype=torch.float32), places)
    if frames > 1 and cfg.temporal < 1:
        clip = merge_time(clip, tokens, max(tokens, share(cfg.temporal, len(places))))
        return merge_space(clip, tokens, cfg.tokens(tokens, frames))
    left = share(cfg.spatial, tokens)
    alone = [merge_space(Tokens(*rows), tokens, left) for rows in zip(*(t.split(tokens) for t in clip), strict=True)]
    return Tokens(*(torch.cat(parts) for parts in zip(*alone, strict=True))) if left < tokens else clip


def merge_time(clip: Tokens, tokens: int, left: int) -> Tokens:
    """Join the pairs of one place in neighbouring frames that are most alike (by cosine) until `left` are left.

    Pairs in a row become one token. Of equal pairs the earlier goes first. A clip is `[F * M]`, none merged before.
    """
    x_FMD = clip.x_TD.detach().float().unflatten(0, (-1, tokens))
    alike = F.cosine_similarity(x_FMD[1:], x_FMD[:-1], dim=-1).flatten()
    joined = alike.argsort(descending=True, stable=True)[: len(clip.x_TD) - left] + tokens
    joins_FM = torch.zeros_like(clip.place_T, dtype=torch.bool).index_fill(0, joined, True).unflatten(0, (-1, tokens))
    begins_FM = clip.place_T.unflatten(0, (-1, tokens)).masked_fill(joins_FM, -1).cummax(dim=0).values
    return averaged(clip, begins_FM.flatten())


def merge_space(clip: Tokens, tokens: int, left: int) -> Tokens:
    """Merge within frames until `left` are left (ToMe, section 3): in a round every other token of a frame finds the
    one of the rest that is most like it, and the closest pairs of the whole clip are merged."""
    while len(clip.x_TD) > left:
        pairs = [_matched(clip, rows_N) for rows_N in _by_frame(clip.place_T // tokens)]
        alike, from_P, to_P = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        most = max(1, len(clip.x_TD) // ROUNDS)
        chosen = alike.argsort(descending=True, stable=True)[: min(most, len(clip.x_TD) - left)]
        into_T = torch.arange(len(clip.x_TD), device=clip.x_TD.device)
        into_T[from_P[chosen]] = to_P[chosen]
        clip = averaged(clip, into_T)
    return clip


def averaged(clip: Tokens, group_T: Tensor) -> Tokens:
    """Tokens of one group as their mean, weighted by size, at the place of the first; in the order of places."""
    _, group_T = group_T.unique(return_inverse=True)
    groups = int(group_T.max()) + 1
    size_G = clip.size_T.new_zeros(groups).index_add(0, group_T, clip.size_T)
    sum_GD = clip.x_TD.new_zeros(groups, clip.x_TD.shape[1], dtype=torch.float32)
    sum_GD = sum_GD.index_add(0, group_T, clip.x_TD.float() * clip.size_T[:, None])
    place_G = clip.place_T.new_zeros(groups).scatter_reduce(0, group_T, clip.place_T, "amin", include_self=False)
    order = place_G.argsort()
    x_GD = (sum_GD / size_G[:, None]).to(clip.x_TD.dtype)
    return Tokens(x_GD[order], size_G[order], place_G[order])


def _by_frame(frame_T: Tensor) -> list[Tensor]:
    """The rows of each frame, which stand together."""
    rows = torch.arange(len(frame_T), device=frame_T.device)
    return list(rows.split(frame_T.unique_consecutive(return_counts=True)[1].tolist()))


def _matched(clip: Tokens, rows_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every other row its nearest among the rest: how alike they are, and both rows."""
    from_P, others = rows_N[0::2], rows_N[1::2]
    if not len(others):
        return clip.size_T[:0], from_P[:0], others
    unit_TD = F.normalize(clip.x_TD.detach().float(), dim=-1)
    alike, nearest = (unit_TD[from_P] @ unit_TD[others].T).max(dim=1)
    return alike, from_P, others[nearest]
