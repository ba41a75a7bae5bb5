"""Latent attention: its two forms compute the same, and the cache holds the latent and the rotated key alone."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from vlm.language.attention.kv_cache import KVCache
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.language.lora import add_lora

LATENT = {"kind": "mla", "kv_rank": 10, "rope_width": 4, "value_width": 6}


def model(form: str = "auto", **options: Any) -> LanguageModel:
    attention = LATENT | {key: options.pop(key) for key in [*options] if key in ("q_rank", "bias", "value_width")}
    cfg = tiny.LANGUAGE.model_dump() | {"kv_heads": 4, "head_width": 12, "moe": None, "attention": attention} | options
    torch.manual_seed(0)
    built = LanguageModel(LanguageConfig.model_validate(cfg)).eval()
    for layer in built.layers:
        layer.attention.form = form
    return built


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(tiny.LANGUAGE.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"q_rank": 8, "bias": True}, {"value_width": 14}])
@pytest.mark.parametrize("grad", [False, True])
def test_absorbed_and_expanded_forms_agree_in_float64(
    tokens: torch.Tensor, options: dict[str, Any], grad: bool
) -> None:
    """With gradients too: they take the written-out attention on a CPU."""
    with torch.set_grad_enabled(grad):
        absorbed, expanded = (model(form, **options).double() for form in ("absorbed", "expanded"))
        ours, expected = absorbed(tokens), expanded(tokens)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    if grad:
        for built, logits in ((absorbed, ours), (expanded, expected)):
            logits.square().mean().backward()
            assert all(p.grad is not None for p in built.parameters())
        for a, b in zip(absorbed.parameters(), expanded.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("form", ["auto", "absorbed", "expanded"])
@pytest.mark.parametrize("chunks", [[1] * 12, [7, 1, 1, 3], [12]])
def test_cached_decoding_equals_the_full_forward(tokens: torch.Tensor, form: str, chunks: list[int]) -> None:
    built = model(form, q_rank=8)
    cache = KVCache(built.cfg, 2, 12, like=built.embedding.weight)
    logits = torch.cat([built(chunk, cache=cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(q_rank=8)(tokens), rtol=1e-4, atol=1e-5)


def test_the_cache_holds_the_latent_and_one_rotated_key_a_token() -> None:
    cfg = model().cfg
    cache = KVCache(cfg, 3, 50, like=torch.zeros(()))
    assert cache.nbytes == cfg.layers * 3 * 50 * (10 + 4) * 4


@torch.no_grad()
def test_kept_rows_go_on_as_they_would_alone(tokens: torch.Tensor) -> None:
    built = model()
    cache = KVCache(built.cfg, 2, 12, like=built.embedding.weight)
    built(tokens[:, :7], cache=cache)
    cache.keep(torch.tensor([False, True]))
    torch.testing.assert_close(built(tokens[1:, 7:], cache=cache), built(tokens[1:])[:, 7:], rtol=1e-4, atol=1e-5)


def test_auto_decodes_absorbed_and_prefills_expanded(tokens: torch.Tensor) -> None:
    attention = model(value_width=2).layers[0].attention  # making costs 10 x 10 a token, a query 10 more
    cache = object()
    assert [attention._absorbs(count, cache) for count in (1, 9, 10, 500)] == [True, True, False, False]
    assert not attention._absorbs(1, None)


@torch.no_grad()
def test_an_adapter_on_the_keys_matrix_is_not_forgotten(tokens: torch.Tensor) -> None:
    pytest.importorskip("peft")
    built = model()
    add_lora(built, rank=2, alpha=4.0, targets=["kv_up"])
    for name, parameter in built.named_parameters():
        if ".lora_" in name:
            parameter.normal_(std=0.3)
    cache = KVCache(built.cfg, 2, 12, like=built.embedding.weight)
    logits = torch.cat([built(token, cache=cache) for token in tokens.split(1, dim=1)], dim=1)
    torch.testing.assert_close(logits, built(tokens), rtol=1e-4, atol=1e-5)


def test_configs_that_cannot_be_are_refused() -> None:
    good = model().cfg.model_dump()
    for change, words in [
        ({"kv_heads": 2}, "latent attention needs kv_heads = heads, got 2 and 4"),
        ({"head_width": 4}, "rope_width 4 leaves nothing of head_width 4"),
        ({"attention": LATENT | {"rope_width": 3}}, "rotary positions need pairs, got a rotated width of 3"),
    ]:
        with pytest.raises(ValueError, match=words):
            LanguageConfig.model_validate(good | change)
