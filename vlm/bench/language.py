"""`vlm bench moe` and `vlm bench decode`: the language model against transformers and against its own other forms.

Weights are random; what is compared gets the same through a folder that ours writes and transformers reads. Outputs
must agree before anything is timed. Float32, on the threads that torch was given.

B sequences, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlm.bench.timing import Ratio, alternate
from vlm.language import LanguageModel, save
from vlm.language.config import GroupedQueryConfig, LanguageConfig, LatentConfig, MoEConfig
from vlm.language.kv_cache import KVCache
from vlm.language.latent_attention import LatentAttention

MOE = LanguageConfig(
    vocab_size=64, width=576, layers=1, heads=9, kv_heads=3, head_width=64, ffn_width=1536, max_positions=4096,
    attention=GroupedQueryConfig(qk_norm="head"),
    moe=MoEConfig(experts=64, top_k=8, width=192, shared_width=0, scoring="softmax", balanced=False),
)  # fmt: skip
FORWARD_TOKENS, TRAINING_TOKENS = (1, 16, 512, 4096), (16, 512)
PATHS = {"eager": "a loop over experts", "grouped_mm": "grouped products", "batched_mm": "batched products"}
"""transformers' ways to compute a mixture layer."""
ALL_WEIGHTS_A_ROW = 64
"""The batched one copies an expert's weights for every row: up to this many tokens only."""

LLAMA = LanguageConfig(  # SmolLM2-135M's shape
    vocab_size=49152, width=576, layers=30, heads=9, kv_heads=3, head_width=64, ffn_width=1536, max_positions=4096
)
LATENT = LanguageConfig(
    vocab_size=4096, width=512, layers=4, heads=8, kv_heads=8, head_width=96, ffn_width=1024, max_positions=16384,
    attention=LatentConfig(kind="mla", kv_rank=128, rope_width=32, value_width=64),
)  # fmt: skip
PROMPT, STEPS, LATENT_PAST = 512, 32, 4096

Say = Callable[[str], None]


def moe(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Ratio]:
    """A mixture layer forwards and in training, against each of transformers' ways to compute it."""
    ours, theirs = _both(MOE, "qwen3_moe")
    layer, block, config = ours.layers[0].get_submodule("ffn"), theirs.model.layers[0].mlp, theirs.config
    assert MOE.moe is not None
    shape = f"{MOE.moe.experts} experts of {MOE.moe.width}, {MOE.moe.top_k} a token"
    cases = [("forward", _forward, tokens) for tokens in FORWARD_TOKENS]
    cases += [("forward and backward", _training_step, tokens) for tokens in TRAINING_TOKENS]
    for (name, step, tokens), (path, peer) in itertools.product(cases, PATHS.items()):
        if path == "batched_mm" and tokens > ALL_WEIGHTS_A_ROW:
            continue
        what = f"mixture layer {name}, {tokens} tokens, {shape}"
        say(f"{what}, {path}")
        config._experts_implementation = path  # the peer's layer reads it at every call
        x_BTD = torch.randn(1, tokens, MOE.width)
        mine, other = partial(step, layer, x_BTD), partial(step, block, x_BTD)
        _agree(what, mine(), other())
        yield alternate(what, f"transformers, {peer}", mine, other, rounds)


def decode(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Ratio]:
    """A dense llama against transformers, and the two forms of latent attention against each other."""
    ours, theirs = _both(LLAMA, "llama")
    tokens_BT = torch.randint(LLAMA.vocab_size, (1, PROMPT + STEPS))
    for comparison in (_prefill, _decode):
        say(comparison.__name__.strip("_"))
        yield comparison(ours, theirs, tokens_BT, rounds)
    del ours, theirs
    say("latent attention")
    yield _latent(rounds)


def run(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Ratio]:
    """Both."""
    yield from moe(rounds, say)
    yield from decode(rounds, say)


def _prefill(ours: LanguageModel, theirs: nn.Module, tokens_BT: Tensor, rounds: int) -> Ratio:
    what, prompt_BT = f"prefill of {PROMPT} tokens, {_millions(ours)} dense llama", tokens_BT[:, :PROMPT]

    @torch.inference_mode()
    def mine() -> Tensor:
        hidden_BTD = ours.hidden(ours.embedding(prompt_BT), cache=_cache(ours, PROMPT))
        return ours.logits(hidden_BTD[:, -1:])

    @torch.inference_mode()
    def other() -> Tensor:
        return theirs(prompt_BT, use_cache=True, logits_to_keep=1).logits

    _agree(what, mine(), other())
    return alternate(what, "transformers", mine, other, rounds)


def _decode(ours: LanguageModel, theirs: nn.Module, tokens_BT: Tensor, rounds: int) -> Ratio:
    """The tokens are given, not chosen, so that both sides do the same whatever the last digit of a logit is."""
    what = f"decoding {STEPS} tokens behind {PROMPT}, {_millions(ours)} dense llama"
    prompt_BT, steps = tokens_BT[:, :PROMPT], tokens_BT[:, PROMPT:].split(1, dim=1)
    cache = _cache(ours, PROMPT + STEPS)
    with torch.inference_mode():
        ours.hidden(ours.embedding(prompt_BT), cache=cache)
        past = theirs(prompt_BT, use_cache=True, logits_to_keep=1).past_key_values

    def mine() -> Tensor:
        return _steps(ours, steps, cache, PROMPT)

    @torch.inference_mode()
    def other() -> Tensor:
        logits = [theirs(token_B1, past_key_values=past, use_cache=True).logits for token_B1 in steps]
        past.crop(-STEPS)
        return torch.cat(logits, 1)

    _agree(what, mine(), other())
    return alternate(what, "transformers", mine, other, rounds)


def _latent(rounds: int) -> Ratio:
    what = f"decoding {STEPS} tokens behind {LATENT_PAST} with latent attention, absorbed"
    model, steps = LATENT.build().eval(), torch.randint(LATENT.vocab_size, (1, STEPS)).split(1, dim=1)
    attentions = [module for module in model.modules() if isinstance(module, LatentAttention)]
    cache = _cache(model, LATENT_PAST + STEPS)
    with torch.inference_mode():
        for chunk in torch.randint(LATENT.vocab_size, (1, LATENT_PAST)).split(512, dim=1):
            model.hidden(model.embedding(chunk), cache=cache)

    def in_form(form: Any) -> Tensor:
        for attention in attentions:
            attention.form = form
        return _steps(model, steps, cache, LATENT_PAST)

    _agree(what, in_form("absorbed"), in_form("expanded"))
    return alternate(what, "ours, expanded", lambda: in_form("absorbed"), lambda: in_form("expanded"), rounds)


@torch.inference_mode()
def _steps(model: LanguageModel, steps: tuple[Tensor, ...], cache: KVCache, past: int) -> Tensor:
    """Logits `[1, T, V]` of tokens read one by one behind the first `past` of the cache."""
    cache.length = past  # what an earlier round wrote behind is written over
    return torch.cat([model.logits(model.hidden(model.embedding(token_B1), cache=cache)) for token_B1 in steps], 1)


def _both(cfg: LanguageConfig, family: str) -> tuple[LanguageModel, Any]:
    """A random model of ours, and the same in transformers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    ours = cfg.build().eval()
    with tempfile.TemporaryDirectory() as folder:
        save(ours, folder, family)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return ours, theirs.eval()


def _cache(model: LanguageModel, capacity: int) -> KVCache:
    return KVCache(model.cfg, 1, capacity, like=model.embedding.weight)


@torch.inference_mode()
def _forward(layer: nn.Module, x_BTD: Tensor) -> Tensor:
    return layer(x_BTD)


def _training_step(layer: nn.Module, x_BTD: Tensor) -> Tensor:
    """Gradient of the input; those of the weights are made, too."""
    layer.zero_grad()
    x_BTD = x_BTD.clone().requires_grad_()
    layer(x_BTD).square().sum().backward()
    assert x_BTD.grad is not None
    return x_BTD.grad


def _agree(what: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    difference, scale = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not difference <= tolerance * scale:
        raise AssertionError(
            f"{what}: ours and the peer's results differ by {difference:.2g} at a scale of {scale:.2g}"
        )


def _millions(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.0f}M"
