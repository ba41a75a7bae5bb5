"""Attention from a few learned queries, for the projectors that have them.

B images, M queries, S tokens looked at, D width of the queries, H heads, K head width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class QueryAttention(nn.Module):
    """Softmax attention (arXiv:1706.03762, section 3.2) of queries of width D to tokens of any width."""

    def __init__(self, width: int, seen_width: int, heads: int, head_width: int, *, bias: bool, norm: bool = False):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, heads * head_width, bias=bias)
        self.k_proj = nn.Linear(seen_width, heads * head_width, bias=bias)
        self.v_proj = nn.Linear(seen_width, heads * head_width, bias=bias)
        self.o_proj = nn.Linear(heads * head_width, width, bias=bias)
        self.q_norm = nn.LayerNorm(head_width) if norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_width) if norm else nn.Identity()

    def forward(self, queries_BMD: Tensor, seen_BSD: Tensor) -> Tensor:
        """`[B, M, D]`, without the residual."""
        q_BHMK = self.q_norm(self._heads(self.q_proj(queries_BMD)))
        k_BHSK = self.k_norm(self._heads(self.k_proj(seen_BSD)))
        mixed_BHMK = F.scaled_dot_product_attention(q_BHMK, k_BHSK, self._heads(self.v_proj(seen_BSD)))
        return self.o_proj(mixed_BHMK.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
