"""Every way through `attend` is the written-out softmax under the mask that it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlm.language.attention import attend as module
from vlm.language.attention.attend import attend, plain_attention
from vlm.language.attention.gathered import HeavyBlocks, attend_blocks, attend_chosen
from vlm.language.attention.kv_cache import block_means
from vlm.language.attention.masks import causal_mask, padded_mask, shown_mask, window_mask
from vlm.language.attention.sparse import heavy_block_mask, top_token_mask, top_tokens

HEADS = [(4, 4), (6, 2), (3, 1)]


def parts(
    tokens: int, keys: int, heads: int = 6, groups: int = 2, width: int = 8, values: int = 8
) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    shapes = (heads, tokens, width), (groups, keys, width), (groups, keys, values)
    return tuple(torch.randn(2, *shape, dtype=torch.float64) for shape in shapes)


def test_masks_are_what_they_say() -> None:
    causal, near = causal_mask(4, 3, torch.device("cpu"))[0], window_mask(4, 3, 3, torch.device("cpu"))[0]
    for t in range(4):
        for s in range(7):
            assert causal[t, s] == (s <= 3 + t)
            assert near[t, s] == (t < s <= 3 + t)


@torch.no_grad()
@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (1, 9), (9, 9), (5, 9), (3, 3), (300, 700)])
@pytest.mark.parametrize("values", [8, 5, 11])
def test_causal(heads: int, groups: int, tokens: int, keys: int, values: int) -> None:
    q, k, v = parts(tokens, keys, heads, groups, values=values)
    mask = causal_mask(tokens, keys - tokens, q.device)
    torch.testing.assert_close(attend(q, k, v, None), plain_attention(q, k, v, mask))
    torch.testing.assert_close(attend(q, k, v, None, scale=0.3), plain_attention(q, k, v, mask, scale=0.3))


@torch.no_grad()
@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize("keys", [12, 13, 20])
@pytest.mark.parametrize("threads", [5, 12])
def test_keys_shared_out_among_threads(
    heads: int, groups: int, keys: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPLIT_KEYS", 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    q, k, v = (part[:1] for part in parts(1, keys, heads, groups, values=5))
    torch.testing.assert_close(attend(q, k, v, None), plain_attention(q, k, v, None))


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 4, 9, 50])
@pytest.mark.parametrize(("tokens", "keys"), [(1, 30), (7, 30), (30, 30), (3, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_windows(window: int, tokens: int, keys: int, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of four queries; a mask may reach further back than the keys."""
    monkeypatch.setattr(module, "QUERIES", 4)
    q, k, v = parts(tokens, keys)
    real = torch.ones(2, keys, dtype=torch.bool)
    real[1, : keys // 3] = False
    given = padded_mask(real, tokens) if masked else None
    longer = None if given is None else torch.cat([torch.ones(2, tokens, 3, dtype=torch.bool), given], dim=2)
    expected = plain_attention(q, k, v, shown_mask(given, tokens, keys, window, q.device))
    torch.testing.assert_close(attend(q, k, v, longer, window=window), expected)


def test_gradients_go_through_windows_and_unequal_widths() -> None:
    q, k, v = (part.requires_grad_() for part in parts(6, 9, values=5))
    mask = window_mask(6, 3, 4, q.device)
    ours = torch.autograd.grad(attend(q, k, v, None, window=4).square().sum(), (q, k, v))
    expected = torch.autograd.grad(plain_attention(q, k, v, mask).square().sum(), (q, k, v))
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other)


@torch.no_grad()
@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize(("tokens", "keys"), [(1, 40), (7, 40), (40, 40)])
@pytest.mark.parametrize("at_once", [1, 10**9])
def test_gathered_tokens_are_attention_under_their_mask(
    heads: int, groups: int, tokens: int, keys: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.language.attention.gathered.GATHERED_NUMBERS", at_once)
    q, k, v = parts(tokens, keys, heads, groups)
    scores, mask = torch.randn(2, tokens, keys), causal_mask(tokens, keys - tokens, q.device)
    for values in (v, k):
        expected = plain_attention(q, k, values, top_token_mask(scores, 5, mask), scale=0.4)
        ours = attend_chosen(q, k, values, *top_tokens(scores, 5, mask), scale=0.4)
        torch.testing.assert_close(ours, expected)


@torch.no_grad()
@pytest.mark.parametrize(("tokens", "keys"), [(1, 64), (1, 67), (9, 67), (67, 67), (3, 12), (12, 12)])
@pytest.mark.parametrize("count", [1, 3])
def test_gathered_blocks_are_attention_under_their_mask(
    tokens: int, keys: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.language.attention.gathered.SCORED_QUERIES", 8)
    monkeypatch.setattr("vlm.language.attention.gathered.gathering_pays", lambda *_: not torch.is_grad_enabled())
    q, k, v = parts(tokens, keys)
    mask = heavy_block_mask(q, k, 4, count, causal_mask(tokens, keys - tokens, q.device))
    expected = plain_attention(q, k, v, mask)
    blocks = HeavyBlocks(size=4, count=count)
    torch.testing.assert_close(attend_blocks(q, k, v, blocks, None, block_means), expected)
    with torch.enable_grad():  # trained under the mask
        torch.testing.assert_close(attend_blocks(q, k, v, blocks, None, block_means), expected)
    given = causal_mask(tokens, keys - tokens, q.device)
    torch.testing.assert_close(attend_blocks(q, k, v, blocks, given, block_means), expected)


@pytest.mark.parametrize("count", [63, 64, 65, 1000])
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("many", [0, 10**9])
def test_the_best_of_many_are_the_best(count: int, k: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted out at once, or through the maxima of columns."""
    monkeypatch.setattr("vlm.language.attention.sparse.MANY", many)
    torch.manual_seed(0)
    scores = torch.randn(2, 3, count)
    mask = torch.rand(2, 3, count) < 0.5
    mask[1, 2, 5:] = False
    chosen, there = top_tokens(scores, k, mask)
    hidden = scores.masked_fill(~mask, -torch.inf)
    best, expected = hidden.topk(k)
    for b in range(2):
        for t in range(3):
            wanted = expected[b, t][best[b, t] > -torch.inf].tolist()
            assert sorted(chosen[b, t][there[b, t]].tolist()) == sorted(wanted)
