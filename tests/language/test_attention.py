from __future__ import annotations

import pytest
import tiny
import torch
from torch.nn import functional as F

from vlm.language.attention.grouped import GroupedQueryAttention, Rotary, plain_attention, rotate
from vlm.language.config import LanguageConfig


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax attention, one query at a time, in float64."""
    batch, heads, tokens, width = q.shape
    out = torch.zeros_like(q, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // k.shape[1])
            for t in range(tokens):
                seen = mask[b % len(mask), t]
                scores = k[b, g, seen].double() @ q[b, h, t].double() / width**0.5
                out[b, h, t] = scores.softmax(0) @ v[b, g, seen].double()
    return out


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_plain_attention_agree_with_a_loop(heads: int, groups: int, masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, heads, 7, 8), torch.randn(2, groups, 7, 8), torch.randn(2, groups, 7, 8)
    mask = (torch.rand(2, 7, 7) < 0.4) | torch.eye(7, dtype=torch.bool) if masked else None
    fused = F.scaled_dot_product_attention(
        q, k, v, attn_mask=None if mask is None else mask[:, None], is_causal=mask is None, enable_gqa=True
    )
    plain = plain_attention(q, k, v, mask)
    expected = by_hand(q, k, v, torch.ones(1, 7, 7, dtype=torch.bool).tril() if mask is None else mask)
    torch.testing.assert_close(plain.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(fused.double(), expected, rtol=0, atol=1e-5)


def test_training_and_inference_paths_agree() -> None:
    """With gradients a CPU takes the plain path, without them the fused one."""
    attention = GroupedQueryAttention(tiny.LANGUAGE, 0)
    rotary = Rotary(8, 10_000.0)(torch.arange(9)[None], torch.float32)
    x = torch.randn(2, 9, 32)
    with_grad = attention(x, rotary, None, None)
    with torch.no_grad():
        without = attention(x, rotary, None, None)
    torch.testing.assert_close(with_grad.detach(), without, rtol=0, atol=1e-5)


def test_gradients_of_plain_attention_equal_the_fused_ones() -> None:
    grads = []
    for path in ("plain", "fused"):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, heads, 6, 8, requires_grad=True) for heads in (4, 2, 2))
        if path == "plain":
            out = plain_attention(q, k, v, None)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out.square().sum().backward()
        grads.append([t.grad for t in (q, k, v)])
    for plain, fused in zip(*grads, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    rotary = Rotary(16, 10_000.0)
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at_q: int, at_k: int) -> float:
        turned_q = rotate(q, rotary(torch.tensor([[at_q]]), torch.float32))
        turned_k = rotate(k, rotary(torch.tensor([[at_k]]), torch.float32))
        return float((turned_q * turned_k).sum())

    assert score(12, 5) == pytest.approx(score(7, 0), abs=1e-4)
    assert score(112, 105) == pytest.approx(score(7, 0), abs=1e-4)
    assert score(12, 5) != pytest.approx(score(12, 6), abs=1e-3)
    assert score(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)


def test_rotary_angles_are_float32_in_a_bfloat16_model() -> None:
    """Position 4001 has no exact bfloat16; its cosine must still be its own."""
    cos, _ = Rotary(8, 10_000.0).bfloat16()(torch.tensor([[4001]]), torch.float32)
    assert float(cos[0, 0, 0, 0]) == pytest.approx(torch.tensor(4001.0).cos().item(), abs=1e-4)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads 5 is not a multiple of kv_heads 2"):
        LanguageConfig.model_validate({**tiny.LANGUAGE.model_dump(), "heads": 5})


def test_more_chosen_experts_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"top_k 5 is more than the 4 experts"):
        LanguageConfig.model_validate({**tiny.LANGUAGE.model_dump(), "moe": {"experts": 4, "top_k": 5, "width": 8}})
