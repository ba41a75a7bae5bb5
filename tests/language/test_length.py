"""However a text is read - at once, in chunks, token by token, in either form of latent attention - replies agree."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from vlm.language.attention.gathered import HeavyBlocks
from vlm.language.attention.kv_cache import KVCache, block_means
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel

PROMPT, REPLY = 50, 12
LATENT = {"kind": "mla", "kv_rank": 10, "rope_width": 4, "value_width": 6, "q_rank": 8}
INDEXER = {"heads": 16, "head_width": 6, "top_k": 5}  # with few heads many scores are exactly zero: ties
MLA = {"kv_heads": 4, "head_width": 12}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grouped": ({}, {}),
    "windows": ({"window": 7}, {}),
    "some windows": ({"window": 7, "window_layers": (0, 2)}, {}),
    "grouped, blocks": ({}, {"blocks": HeavyBlocks(4, 2)}),
    "windows, blocks": ({"window": 7, "window_layers": (0, 2)}, {"blocks": HeavyBlocks(4, 2)}),
    "latent": (MLA | {"attention": LATENT}, {}),
    "latent, absorbed": (MLA | {"attention": LATENT}, {"form": "absorbed"}),
    "latent, expanded": (MLA | {"attention": LATENT}, {"form": "expanded"}),
    "latent, windows": (MLA | {"attention": LATENT, "window": 7}, {}),
    "latent, blocks": (MLA | {"attention": LATENT}, {"blocks": HeavyBlocks(4, 2)}),
    "indexer": (MLA | {"attention": LATENT | {"indexer": INDEXER}}, {}),
    "indexer, absorbed": (MLA | {"attention": LATENT | {"indexer": INDEXER}}, {"form": "absorbed"}),
    "indexer, expanded": (MLA | {"attention": LATENT | {"indexer": INDEXER}}, {"form": "expanded"}),
}


def model(kind: str) -> LanguageModel:
    changes, attributes = KINDS[kind]
    torch.manual_seed(0)
    cfg = LanguageConfig.model_validate(tiny.LANGUAGE.model_dump() | changes)
    built = LanguageModel(cfg).eval().double()
    with torch.no_grad():
        built.embedding.weight *= 0.1  # else the last token's own embedding decides what is said
    for layer in built.layers:
        for name, value in attributes.items():
            setattr(layer.attention, name, value)
    return built


@pytest.fixture(scope="module")
def prompt() -> Tensor:
    return torch.randint(tiny.LANGUAGE.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True, params=[True, False], ids=["gathered", "as it pays"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen is gathered as soon as there is more, or where that pays: while decoding, here."""
    if request.param:
        for name in ("gathered", "latent"):
            here = lambda tokens, keys, chosen, heads: keys > chosen and not torch.is_grad_enabled()  # noqa: E731
            monkeypatch.setattr(f"vlm.language.attention.{name}.gathering_pays", here)


def read(built: LanguageModel, prompt: Tensor, chunk: int) -> tuple[list[int], Tensor]:
    """The reply and its logits, with a cache behind a prompt in chunks."""
    cache = KVCache(built.cfg, 1, PROMPT + REPLY, like=built.embedding.weight)
    said, logits = [], []
    for _ in range(REPLY):
        logits.append(built.logits(built.prefill(built.embedding(prompt), cache, chunk=chunk)))
        said.append(int(logits[-1].argmax()))
        prompt = torch.tensor([said[-1:]])
    return said, torch.cat(logits)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_the_same_in_every_way(kind: str, prompt: Tensor) -> None:
    built, text, expected = model(kind), prompt, []
    # Without a cache and under the mask of the whole text, as in training: no fast path is taken.
    for _ in range(REPLY):
        with torch.enable_grad():
            expected.append(built(text)[:, -1].detach())
        text = torch.cat([text, expected[-1].argmax(-1, keepdim=True)], dim=1)
    said = text[0, PROMPT:].tolist()
    torch.testing.assert_close(
        torch.cat([built(text[:, :end])[:, -1] for end in range(PROMPT, PROMPT + REPLY)]), torch.cat(expected)
    )
    for chunk in (1, 7, 16, PROMPT, 1000):
        reply, logits = read(built, prompt, chunk)
        torch.testing.assert_close(logits, torch.cat(expected))
        assert reply == said


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "blocks" not in kind])
def test_padded_prompts_in_chunks_are_read_as_alone(kind: str, prompt: Tensor) -> None:
    built = model(kind)
    real = torch.arange(PROMPT) >= torch.tensor([[0], [19], [45]])
    cache = KVCache(built.cfg, 3, PROMPT, like=built.embedding.weight)
    x = built.embedding(prompt.expand(3, -1))
    states = built.prefill(x, cache, real_BS=real, chunk=16)
    for row, keep in enumerate(real):
        torch.testing.assert_close(states[row], built.hidden(x[row : row + 1, keep])[0, -1])


def test_forms_and_choices_differ_in_what_they_compute() -> None:
    """A window, blocks and an indexer's choice each change the logits, so that the tests above are about something."""
    tokens = torch.randint(tiny.LANGUAGE.vocab_size, (1, PROMPT))
    with torch.no_grad():
        for plain, *others in [
            ("grouped", "windows", "grouped, blocks"),
            ("latent", "latent, windows", "latent, blocks"),
        ]:
            whole = model(plain)(tokens)
            assert all((model(other)(tokens) - whole).abs().max() > 1e-3 for other in others)
        sparse = model("indexer")
        for layer in sparse.layers:
            layer.attention.top_k = PROMPT
        assert (model("indexer")(tokens) - sparse(tokens)).abs().max() > 1e-3


@torch.no_grad()
def test_heads_made_one_by_one_are_all_heads(prompt: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    built = model("latent, expanded")
    expected = built(prompt)
    monkeypatch.setattr("vlm.language.attention.latent.EXPANDED_NUMBERS", 1)
    torch.testing.assert_close(built(prompt), expected)


@torch.no_grad()
def test_an_indexers_tiles_are_the_whole(prompt: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    built = model("indexer")
    expected = built(prompt)
    for name, value in (("SCORED_QUERIES", 3), ("SCORED_NUMBERS", 1)):
        monkeypatch.setattr(f"vlm.language.attention.sparse.{name}", value)
    torch.testing.assert_close(built(prompt), expected)


def test_a_windows_cache_holds_two_windows_whatever_is_read() -> None:
    cfg = model("some windows").cfg
    cache, whole = (KVCache(c, 1, 1000, like=torch.zeros(())) for c in (cfg, model("grouped").cfg))
    assert cache.nbytes == whole.nbytes // 2 + 2 * 2 * (2 * 7) * 2 * 8 * 4
    seen = torch.arange(1000.0).expand(1, 2, 8, -1).transpose(2, 3)
    for begin, end in [(0, 3), (3, 30), (30, 31), (31, 40), *((i, i + 1) for i in range(40, 90))]:
        new = seen[:, :, begin:end]
        near, far = cache.append(0, new, new)[0], cache.append(1, new, new)[0]
        assert torch.equal(far, seen[:, :, :end])
        least = min(end, 6 + end - begin)
        assert near.shape[2] >= least
        assert torch.equal(near[:, :, -least:], seen[:, :, end - least : end])
        cache.advance(end - begin)


def test_a_cache_set_back_goes_on_from_there_or_says_why_not() -> None:
    cfg = model("some windows").cfg
    cache, new = KVCache(cfg, 1, 100, like=torch.zeros(())), torch.randn(1, 2, 20, 8)
    cache.append(0, new, new)
    cache.advance(20)
    cache.append(0, new[:, :, :2], new[:, :, :2])
    cache.advance(2)
    cache.length = 20
    again = torch.randn(1, 2, 3, 8)
    kept, _ = cache.append(0, again, again)
    assert torch.equal(kept[:, :, -9:], torch.cat([new[:, :, -6:], again], dim=2))
    cache.length = 12
    with pytest.raises(ValueError, match="layer 0 keeps tokens from 14 on, asked to go on at 12"):
        cache.append(0, again, again)


def test_block_means_are_made_once_and_follow_a_cache_set_back() -> None:
    cfg = model("grouped").cfg
    cache, keys = KVCache(cfg, 2, 40, like=torch.zeros(())), torch.randn(2, 2, 40, 8)
    for begin, end in [(0, 3), (3, 9), (9, 10), (10, 31), (17, 30), (30, 31)]:
        cache.length = begin
        new = keys[:, :, begin:end] if end != 30 else torch.zeros(2, 2, 13, 8)
        stored, _ = cache.append(1, new, new)
        torch.testing.assert_close(cache.block_means(1, stored, 4), block_means(stored, 4))
        cache.advance(end - begin)
    cache.keep(torch.tensor([False, True]))
    stored, _ = cache.append(1, keys[1:, :, 31:], keys[1:, :, 31:])
    torch.testing.assert_close(cache.block_means(1, stored, 4), block_means(stored, 4))
