from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vlm.language.attention.grouped import Rotary, plain_attention
from vlm.language.attention.sparse import (
    LightningIndexer,
    attention_mass,
    heavy_block_mask,
    heavy_token_mask,
    indexer_loss,
    top_token_mask,
    top_tokens,
)
from vlm.language.config.rotary import PlainRope

B, T, D, Q, HEADS, J, R = 2, 13, 20, 12, 3, 10, 6


def causal(tokens: int, past: int = 0) -> Tensor:
    return torch.ones(1, tokens, past + tokens, dtype=torch.bool).tril(past)


def indexer(interleaved: bool = False) -> LightningIndexer:
    torch.manual_seed(0)
    module = LightningIndexer(D, Q, HEADS, J, interleaved).eval()
    torch.nn.init.normal_(module.k_norm.weight)
    torch.nn.init.normal_(module.k_norm.bias)
    return module


@torch.no_grad()
def test_index_scores_equal_the_equation_a_pair_at_a_time() -> None:
    module, x, latent = indexer(), torch.randn(B, T, D), torch.randn(B, T, Q)
    cos, sin = rotary = Rotary(R, 100.0)(torch.arange(T)[None], torch.float32)
    scores = module(x, latent, module.keys(x, rotary), rotary)

    def turn(v: Tensor, t: int) -> Tensor:
        first, second, rest = v[: R // 2], v[R // 2 : R], v[R:]
        c, s = cos[0, 0, t, : R // 2], sin[0, 0, t, : R // 2]
        return torch.cat([first * c - second * s, second * c + first * s, rest])

    for b, t, s in itertools.product(range(B), range(T), range(T)):
        key = turn(module.k_norm(module.wk.weight @ x[b, s]), s)
        total = 0.0
        for i in range(HEADS):
            query = turn(module.wq_b.weight[i * J : (i + 1) * J] @ latent[b, t], t)
            weight = module.weights_proj.weight[i] @ x[b, t] / HEADS**0.5
            total += float(weight * torch.relu(query @ key / J**0.5))
        assert float(scores[b, t, s]) == pytest.approx(total, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("interleaved", [False, True])
def test_indexer_chooses_what_transformers_chooses(interleaved: bool) -> None:
    """The state dict fits as it is; the layout of the main attention's rotary makes no difference."""
    reference = pytest.importorskip("transformers.models.deepseek_v32.modeling_deepseek_v32")
    config = reference.DeepseekV32Config(
        hidden_size=D, q_lora_rank=Q, index_n_heads=HEADS, index_head_dim=J, qk_rope_head_dim=R, index_topk=5
    )
    module = indexer(interleaved)
    theirs = reference.DeepseekV32Indexer(config, 0).eval()
    theirs.load_state_dict(module.state_dict())
    x, latent, positions = torch.randn(B, T, D), torch.randn(B, T, Q), torch.arange(T)[None]
    mask = causal(T).expand(B, T, T)
    cos, sin = Rotary(R, 100.0)(positions, torch.float32)
    expected = theirs(x, latent, (cos[:, 0], sin[:, 0]), mask, positions)
    rotary = Rotary(R, 100.0, PlainRope(interleaved=interleaved))(positions, torch.float32)
    scores = module(x, latent, module.keys(x, rotary), rotary)
    theirs_mask = torch.zeros(B, T, T, dtype=torch.bool).scatter_(-1, expected.long(), True) & mask
    assert torch.equal(top_token_mask(scores, 5, mask), theirs_mask)


@torch.no_grad()
def test_scores_from_cached_keys_are_those_of_the_whole() -> None:
    module, x, latent = indexer(), torch.randn(B, T, D), torch.randn(B, T, Q)
    rotary = Rotary(R, 100.0)(torch.arange(T)[None], torch.float32)
    whole = module(x, latent, module.keys(x, rotary), rotary)
    cos, sin = rotary
    keys = [
        module.keys(x[:, part], (cos[:, :, part], sin[:, :, part])) for part in (slice(0, 8), slice(8, 9), slice(9, T))
    ]
    last = module(x[:, 9:], latent[:, 9:], torch.cat(keys, 1), (cos[:, :, 9:], sin[:, :, 9:]))
    torch.testing.assert_close(last, whole[:, 9:])


@pytest.mark.parametrize("k", [1, 4, 12])
def test_top_tokens_are_the_best_a_query_may_see(k: int) -> None:
    torch.manual_seed(0)
    scores, mask = torch.randn(B, T, T), causal(T) & (torch.rand(B, T, T) < 0.8)
    mask[1, 5] = False  # a query that sees nothing
    chosen, there = top_tokens(scores, k, mask)
    made = top_token_mask(scores, k, mask)
    for b, t in itertools.product(range(B), range(T)):
        seen = mask[b, t].nonzero()[:, 0].tolist()
        best = set(sorted(seen, key=lambda s: -float(scores[b, t, s]))[:k])
        assert set(made[b, t].nonzero()[:, 0].tolist()) == best
        assert set(chosen[b, t][there[b, t]].tolist()) == best


def test_room_for_every_token_is_dense_attention() -> None:
    torch.manual_seed(0)
    q, k, v, mask = torch.randn(B, 4, T, 8), torch.randn(B, 2, T, 8), torch.randn(B, 2, T, 8), causal(T)
    dense = plain_attention(q, k, v, mask)
    for made in (
        top_token_mask(torch.randn(B, T, T), T, mask),
        heavy_token_mask(q, k, T + 3, mask),
        heavy_block_mask(q, k, 4, 4, mask),
    ):
        assert torch.equal(plain_attention(q, k, v, made), dense)


def by_hand(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """Attention weights, the mean over heads, a query and a head at a time."""
    out = torch.zeros(len(q), q.shape[2], k.shape[2])
    for b, h, t in itertools.product(*(range(n) for n in q.shape[:3])):
        seen = mask[b % len(mask), t]
        if seen.any():
            weights = (k[b, h // (q.shape[1] // k.shape[1]), seen] @ q[b, h, t] / q.shape[3] ** 0.5).softmax(0)
            out[b, t, seen] += weights / q.shape[1]
    return out


def test_attention_mass_equals_a_loop() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(B, 6, 5, 8), torch.randn(B, 2, T, 8)
    mask = torch.rand(B, 5, T) < 0.6
    mask[0, 2] = False
    torch.testing.assert_close(attention_mass(q, k, mask), by_hand(q, k, mask), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attention_mass(q, k, mask, scale=0.0), mask / mask.sum(-1, keepdim=True).clamp(min=1))


def test_the_heaviest_tokens_hold_more_than_any_other_choice() -> None:
    torch.manual_seed(0)
    q, k, mask = torch.randn(B, 4, T, 8), torch.randn(B, 2, T, 8), causal(T)
    weights = by_hand(q, k, mask)
    held = (weights * heavy_token_mask(q, k, 3, mask)).sum(-1)
    torch.testing.assert_close(held, weights.topk(3).values.sum(-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("block", "blocks", "past"), [(4, 1, 0), (4, 2, 0), (3, 3, 0), (4, 2, 9), (5, 2, 12)])
def test_block_mask_equals_a_loop(block: int, blocks: int, past: int) -> None:
    """Also with a cache, and with two tokens of padding in front of the second sequence."""
    torch.manual_seed(0)
    tokens = 13
    q, k = torch.randn(B, 4, tokens, 8), torch.randn(B, 2, past + tokens, 8)
    mask = causal(tokens, past).repeat(B, 1, 1)
    mask[1, :, :2] = False
    made = heavy_block_mask(q, k, block, blocks, mask)
    for b, t in itertools.product(range(B), range(tokens)):
        own = (past + t) // block
        starts = [max(n * block, 2 * b) for n in range(own)]
        spans = [(n, slice(start, (n + 1) * block)) for n, start in enumerate(starts) if start < (n + 1) * block]
        weight = torch.zeros(len(spans))
        for h in range(4 if spans else 0):
            means = torch.stack([k[b, h // 2, span].mean(0) for _, span in spans])
            weight += (means @ q[b, h, t] / 8**0.5).softmax(0)
        best = [spans[i][0] for i in weight.argsort(descending=True)[: blocks - 1].tolist()]
        expected = [s for s in range(past + tokens) if s // block in [*best, own] and mask[b, t, s]]
        assert made[b, t].nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["tokens", "blocks"])
def test_later_keys_change_no_earlier_choice(kind: str) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(B, 4, 24, 8), torch.randn(B, 2, 24, 8)

    def made(keys: Tensor) -> Tensor:
        if kind == "tokens":
            return heavy_token_mask(q, keys, 4, causal(24))
        return heavy_block_mask(q, keys, 4, 3, causal(24))

    before = made(k)
    changed = k.clone()
    changed[:, :, 14:] = 5 * torch.randn(B, 2, 10, 8)
    assert torch.equal(made(changed)[:, :14], before[:, :14])
    assert not torch.equal(made(changed), before)
    assert not before.triu(1).any()
    assert bool(before.any(-1).all())


def test_indexer_loss_equals_a_loop_and_teaches_the_indexer() -> None:
    torch.manual_seed(0)
    scores, attention = torch.randn(B, T, T, dtype=torch.float64, requires_grad=True), torch.rand(B, T, T)
    mask = causal(T).repeat(B, 1, 1)
    mask[0, 3] = False
    expected = []
    for b, t in itertools.product(range(B), range(T)):
        seen = mask[b, t]
        if seen.any():
            p, q = attention[b, t, seen] / attention[b, t, seen].sum(), scores[b, t, seen].softmax(0)
            expected.append((p * (p.log() - q.log())).sum())
    loss = indexer_loss(scores, attention, mask)
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert not gradient[~mask].any()
    assert bool(gradient.isfinite().all())

    module, x, latent = indexer(), torch.randn(B, T, D), torch.randn(B, T, Q)
    rotary, wanted = Rotary(R, 100.0)(torch.arange(T)[None], torch.float32), F.softmax(3 * torch.randn(B, T, T), -1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = indexer_loss(module(x, latent, module.keys(x, rotary), rotary), wanted, causal(T))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
