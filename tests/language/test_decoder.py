from __future__ import annotations

import pytest
import tiny
import torch

from vlm.language.attention.kv_cache import KVCache
from vlm.language.decoder import LanguageModel
from vlm.language.lora import add_lora, portable
from vlm.language.upcycle import upcycle


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(tiny.LANGUAGE.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 1, 1, 1, 1, 1, 1], [4, 3, 5]])
def test_cached_decoding_equals_the_full_forward(tokens: torch.Tensor, chunks: list[int]) -> None:
    model = tiny.language()
    x = model.embedding(tokens)
    cache = KVCache(model.cfg, 2, 12, like=x)
    steps = [model.hidden(chunk, cache=cache) for chunk in x.split(chunks, dim=1)]
    assert cache.length == 12
    torch.testing.assert_close(model.logits(torch.cat(steps, dim=1)), model(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_later_token_changes_nothing_before_it(tokens: torch.Tensor) -> None:
    model = tiny.language()
    changed = tokens.clone()
    changed[:, 8] = (changed[:, 8] + 1) % tiny.LANGUAGE.vocab_size
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8], rtol=1e-4, atol=1e-5)
    assert (before[:, 8:] - after[:, 8:]).abs().amax(dim=(0, 2)).min() > 1e-3


@torch.no_grad()
def test_kept_rows_go_on_as_they_would_alone(tokens: torch.Tensor) -> None:
    model = tiny.language()
    x = model.embedding(tokens)
    cache = KVCache(model.cfg, 2, 12, like=x)
    model.hidden(x[:, :7], cache=cache)
    cache.keep(torch.tensor([False, True]))
    rest = model.hidden(x[1:, 7:], cache=cache)
    torch.testing.assert_close(model.logits(rest), model(tokens[1:])[:, 7:], rtol=1e-4, atol=1e-5)


def test_a_full_cache_says_how_much_it_holds() -> None:
    model = tiny.language()
    x = torch.randn(1, 5, 32)
    cache = KVCache(model.cfg, 1, 6, like=x)
    model.hidden(x, cache=cache)
    with pytest.raises(ValueError, match=r"cache holds 6 tokens, asked to hold 10"):
        model.hidden(x, cache=cache)


def test_tied_embeddings_are_one_parameter() -> None:
    model = tiny.language()
    assert model.lm_head.weight is model.embedding.weight
    untied = LanguageModel(tiny.LANGUAGE.model_copy(update={"tied_embeddings": False}))
    assert untied.lm_head.weight is not untied.embedding.weight


def test_upcycled_logits_are_the_dense_ones_until_an_expert_learns(tokens: torch.Tensor) -> None:
    dense = tiny.language(moe=None)
    model = upcycle(dense, tiny.MOE).eval()
    assert len(model.routers()) == 2
    torch.testing.assert_close(model(tokens), dense(tokens), rtol=0, atol=1e-6)

    model(tokens).square().mean().backward()
    routed = model.layers[1].ffn.routed
    assert routed.down_EDF.grad.abs().amax(dim=(1, 2)).min() > 0  # every expert was called, and each can learn
    assert routed.gate_EFD.grad.abs().max() == 0
    with torch.no_grad():
        routed.down_EDF -= 0.1 * routed.down_EDF.grad.sign()
    assert (model(tokens) - dense(tokens)).abs().max() > 1e-3


def test_upcycling_shares_the_dense_weights_and_names_a_second_time() -> None:
    dense = tiny.language(moe=None)
    model = upcycle(dense, tiny.MOE)
    assert model.embedding.weight is dense.embedding.weight
    assert model.lm_head.weight is model.embedding.weight
    assert model.layers[1].ffn.shared.up_proj.weight is dense.layers[1].ffn.up_proj.weight
    assert not any(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(ValueError, match="already is a mixture"):
        upcycle(model, tiny.MOE)


def test_mixture_layers_follow_first_dense_and_every() -> None:
    names = {name.split(".")[1] for name, _ in tiny.language().named_parameters() if ".routed." in name}
    assert names == {"1", "3"}


@torch.no_grad()
def test_lora_starts_as_nothing_and_exports_its_product(tokens: torch.Tensor) -> None:
    pytest.importorskip("peft")
    model, plain = tiny.language(), tiny.language()
    add_lora(model, rank=2, alpha=6.0, targets=["q_proj"])
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=0, atol=0)
    trained = {name: p for name, p in model.named_parameters() if ".lora_" in name}
    for parameter in trained.values():
        parameter.normal_(std=0.3)
    state = dict(portable(name, p, 6.0 / 2) for name, p in trained.items())
    assert sorted(state) == sorted(
        f"layers.{layer}.attention.q_proj.weight.lora_{kind}" for layer in range(4) for kind in "AB"
    )
    for layer, block in enumerate(plain.layers):
        name = f"layers.{layer}.attention.q_proj.weight"
        block.attention.q_proj.weight += state[f"{name}.lora_B"] @ state[f"{name}.lora_A"]
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=1e-4, atol=1e-5)
