"""Which tokens an attention looks at: DeepSeek sparse attention (V3.2-Exp report, section 2.1), and two selections for
models that were not trained with it.

Each gives a mask `[B, T, S]`, true where a token may look, that any attention here takes. A selection never adds to the
mask it is given, so what is causal stays causal; one that has room for every token returns the given mask itself.
`gathered_attention.py` computes the same without a mask, from the chosen tokens' numbers.

B batch, T tokens, S tokens attended to, D width, Q query latent, I indexer heads, J indexer head width, R rotated part,
H query heads, G key-value heads, K head width, N blocks of keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.attention.rotary import rotate

SCORED_QUERIES, SCORED_NUMBERS = 16, 2**18
"""Index scores are made for so many queries at a time, so many numbers of all heads: what fits a processor's cache."""
MANY, DEPTH = 4096, 8
"""From so many scores on, the best are looked for in columns of this depth."""


class LightningIndexer(nn.Module):
    """Scores every earlier token for each query with a few small heads that share one key (eq. 1).

    Parameters are named as in the published checkpoints (`self_attn.indexer.*`). Those also turn queries and keys by a
    Hadamard matrix before they round them to FP8; it is orthogonal and changes no score, so it is left out here.
    """

    def __init__(self, width: int, latent: int, heads: int, head_width: int, interleaved: bool):
        super().__init__()
        self.heads, self.head_width, self.interleaved = heads, head_width, interleaved
        self.wq_b = nn.Linear(latent, heads * head_width, bias=False)
        self.wk = nn.Linear(width, head_width, bias=False)
        self.k_norm = nn.LayerNorm(head_width, eps=1e-6)
        self.weights_proj = nn.Linear(width, heads, bias=False)

    def keys(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """The tokens' index keys `[B, T, J]`, which a cache keeps."""
        return rotate(self.k_norm(self.wk(x_BTD))[:, None], self._halves(rotary))[:, 0]

    def forward(self, x_BTD: Tensor, latent_BTQ: Tensor, keys_BSJ: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Index scores `[B, T, S]` in float32.

        `latent_BTQ` is the attention's compressed query after its norm; `rotary` the new tokens' cosines and sines
        `[B, 1, T, R]`, as the attention beside it has them.
        """
        q_BITJ = self.wq_b(latent_BTQ).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q_BRJ = rotate(q_BITJ, self._halves(rotary)).transpose(1, 2).flatten(1, 2).float()
        weights_BTI = self.weights_proj(x_BTD.to(self.weights_proj.weight.dtype)).float()
        weights_BT1I = weights_BTI[:, :, None] * (self.heads * self.head_width) ** -0.5
        scores, at_once = [], max(256, SCORED_NUMBERS // q_BRJ.shape[1])
        for keys_BsJ in keys_BSJ.float().split(at_once, dim=1):
            each_BTIs = F.relu(q_BRJ @ keys_BsJ.transpose(1, 2)).unflatten(1, (-1, self.heads))
            scores.append((weights_BT1I @ each_BTIs)[:, :, 0])
        return torch.cat(scores, dim=2)

    @torch.no_grad()
    def choose(
        self,
        x_BTD: Tensor,
        latent_BTQ: Tensor,
        keys_BSJ: Tensor,
        rotary: tuple[Tensor, Tensor],
        k: int,
        mask_BTS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`top_tokens` of the index scores, without holding all of them; no mask means causal, the T tokens last."""
        tokens, past = x_BTD.shape[1], keys_BSJ.shape[1] - x_BTD.shape[1]
        chosen, there = [], []
        for begin in range(0, tokens, SCORED_QUERIES):
            part = slice(begin, min(begin + SCORED_QUERIES, tokens))
            cos, sin = (angles[:, :, part] for angles in rotary)
            scores_BtS = self(x_BTD[:, part], latent_BTQ[:, part], keys_BSJ, (cos, sin))
            if mask_BTS is not None:
                scores_BtS.masked_fill_(~mask_BTS[:, part], -torch.inf)
            else:
                new_Bts = scores_BtS[:, :, past + begin :]  # the keys that are not before all of these queries
                new_Bts += torch.full_like(new_Bts[0], -torch.inf).triu(1)
            chosen_Btk, there_Btk = _best(scores_BtS, k)
            chosen.append(chosen_Btk)
            there.append(there_Btk)
        return torch.cat(chosen, dim=1), torch.cat(there, dim=1)

    def _halves(self, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The indexer pairs the halves of its rotary part, also where the attention beside it pairs neighbours."""
        if not self.interleaved:
            return rotary
        cos, sin = (part[..., ::2].repeat(1, 1, 1, 2) for part in rotary)
        return cos, sin


def indexer_loss(scores_BTS: Tensor, attention_BTS: Tensor, mask_BTS: Tensor) -> Tensor:
    """`KL(attention || softmax(scores))` over what `mask_BTS` shows, the mean over tokens that see anything (eq. 3, 4).

    `attention_BTS` is the main attention's weight a key, summed over heads (`attention_mass`); it is scaled to sum to
    one over the shown and gets no gradient. The mask is causal in the dense warm-up, the selection afterwards.
    """
    target_BTS = attention_BTS.detach().float() * mask_BTS
    target_BTS = target_BTS / target_BTS.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    log_BTS = scores_BTS.masked_fill(~mask_BTS, torch.finfo(scores_BTS.dtype).min).log_softmax(-1)
    loss_BT = (torch.xlogy(target_BTS, target_BTS) - target_BTS * log_BTS).sum(-1)
    return loss_BT.sum() / mask_BTS.any(-1).expand_as(loss_BT).sum().clamp(min=1)


def top_tokens(scores_BTS: Tensor, k: int, mask_BTS: Tensor) -> tuple[Tensor, Tensor]:
    """The `k` best of the tokens each query may see (eq. 2): numbers `[B, T, k]`, and true where that many there are.

    For an attention that gathers keys. `k` is cut to S; a query that sees fewer has arbitrary numbers in the rest.
    """
    return _best(scores_BTS.masked_fill(~mask_BTS, -torch.inf), k)


def _best(scores_BTS: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Numbers of the `k` largest scores and whether each is one.

    Where there are many, they stand in columns of `DEPTH`: the best are in the `k` columns with the largest maxima.
    """
    count = scores_BTS.shape[-1]
    width = count // DEPTH
    if count < MANY or width < 4 * k:
        best_BTk, chosen_BTk = scores_BTS.topk(min(k, count), dim=-1, sorted=False)
        return chosen_BTk, best_BTk > -torch.inf
    maxima_BTN = scores_BTS[..., : DEPTH * width].unflatten(-1, (DEPTH, width)).amax(-2)
    columns_BTk = maxima_BTN.topk(k, dim=-1, sorted=False).indices
    rows = torch.arange(DEPTH, device=scores_BTS.device)[:, None] * width
    rest = torch.arange(DEPTH * width, count, device=scores_BTS.device).expand(*columns_BTk.shape[:-1], -1)
    numbers_BTC = torch.cat([(columns_BTk[..., None, :] + rows).flatten(-2), rest], dim=-1)
    best_BTk, among_BTk = scores_BTS.gather(-1, numbers_BTC).topk(k, dim=-1, sorted=False)
    return numbers_BTC.gather(-1, among_BTk), best_BTk > -torch.inf


def top_token_mask(scores_BTS: Tensor, k: int, mask_BTS: Tensor) -> Tensor:
    """`mask_BTS` less all but each query's `k` best tokens."""
    if k >= scores_BTS.shape[-1]:
        return mask_BTS
    chosen_BTk, _ = top_tokens(scores_BTS, k, mask_BTS)
    return torch.zeros_like(scores_BTS, dtype=torch.bool).scatter_(-1, chosen_BTk, True) & mask_BTS


def heavy_token_mask(q_BHTK: Tensor, k_BGSK: Tensor, k: int, mask_BTS: Tensor, scale: float | None = None) -> Tensor:
    """Each query's `k` tokens of the largest attention weight, the mean over heads.

    What a trained indexer aims at, computed in full: it costs more than attention itself and shows how much of a
    model's attention `k` tokens can hold.
    """
    return top_token_mask(attention_mass(q_BHTK, k_BGSK, mask_BTS, scale), k, mask_BTS)


def heavy_block_mask(
    q_BHTK: Tensor, k_BGSK: Tensor, block: int, blocks: int, mask_BTS: Tensor, scale: float | None = None
) -> Tensor:
    """Each query's own block of keys and the `blocks - 1` earlier ones whose mean key it attends to most.

    Block-sparse attention as MoBA has it (arXiv:2502.13189, section 2.2), one choice for all heads. Scores cost 1 /
    `block` of an attention's. Keys and mask begin at the first token of the cache: block `n` holds tokens `n * block`
    and on. Keys no query sees (padding) do not count in a mean.
    """
    tokens, count = mask_BTS.shape[-1], -(-mask_BTS.shape[-1] // block)
    if blocks >= count:
        return mask_BTS
    fill = count * block - tokens
    # Padding is seen by itself alone, and so is the last token, whose block is in nobody's past.
    seen_BS = mask_BTS.tril(tokens - mask_BTS.shape[1] - 1).any(1)
    seen_BNb = F.pad(seen_BS, (0, fill)).unflatten(1, (count, block))
    keys_BGNbK = F.pad(k_BGSK, (0, 0, 0, fill)).unflatten(2, (count, block))
    means_BGNK = (keys_BGNbK * seen_BNb[:, None, ..., None]).sum(3) / seen_BNb.sum(2).clamp(min=1)[:, None, :, None]
    may_BTN = F.pad(mask_BTS, (0, fill)).unflatten(2, (count, block)).any(-1)
    # The last block a query sees is its own. Its mean holds later tokens, so it takes no part in the choice.
    numbers_N = torch.arange(count, device=mask_BTS.device)
    own_BT1 = (may_BTN * numbers_N).amax(-1, keepdim=True)
    earlier_BTN = may_BTN & (numbers_N < own_BT1)
    scores_BTN = attention_mass(q_BHTK, means_BGNK, earlier_BTN, scale)
    chosen_BTN = top_token_mask(scores_BTN, blocks - 1, earlier_BTN) | (numbers_N == own_BT1)
    return chosen_BTN.repeat_interleave(block, dim=-1)[..., :tokens] & mask_BTS


def attention_mass(q_BHTK: Tensor, k_BGSK: Tensor, mask_BTS: Tensor, scale: float | None = None) -> Tensor:
    """Attention weights `[B, T, S]`, the mean over heads, in float32; 0 where `mask_BTS` hides.

    `scale` is 1 / sqrt(K) by default, as in attention.
    """
    groups, width = k_BGSK.shape[1], k_BGSK.shape[3]
    q_BGrTK = (q_BHTK * (width**-0.5 if scale is None else scale)).unflatten(1, (groups, -1))
    mass_BTS = torch.zeros(1, device=q_BHTK.device)
    for q_BGTK in q_BGrTK.unbind(2):  # a head of each group at a time, to hold G and not H maps
        logits_BGTS = (q_BGTK @ k_BGSK.transpose(-1, -2)).float()
        logits_BGTS = logits_BGTS.masked_fill(~mask_BTS[:, None], torch.finfo(torch.float32).min)
        mass_BTS = mass_BTS + logits_BGTS.softmax(-1).sum(1)
    return mass_BTS / q_BHTK.shape[1] * mask_BTS
