"""`vlm bench decode`: reading tokens one by one, against transformers, llama.cpp and our own other forms.

Weights are random and the same on both sides; logits or tokens must agree before anything is timed. Float32 unless it
says otherwise, on the threads that torch was given.

B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlm.bench import llama_cpp
from vlm.bench.reference import EXPERT_PATHS, build_pair, check_agreement, parameter_count
from vlm.bench.timing import Missing, Ratio, Result, Say, alternate
from vlm.language import LanguageModel
from vlm.language.attention.kv_cache import KVCache
from vlm.language.attention.latent import LatentAttention
from vlm.language.config import LanguageConfig
from vlm.language.config.attention import GroupedQueryConfig, LatentConfig
from vlm.language.config.mixture import MoEConfig

LLAMA = LanguageConfig(  # SmolLM2-135M's shape
    vocab_size=49152, width=576, layers=30, heads=9, kv_heads=3, head_width=64, ffn_width=1536, max_positions=4096
)
MIXTURE = LanguageConfig(
    vocab_size=4096, width=576, layers=8, heads=9, kv_heads=3, head_width=64, ffn_width=1536, max_positions=4096,
    attention=GroupedQueryConfig(qk_norm="head"),
    moe=MoEConfig(experts=64, top_k=8, width=192, shared_width=0, scoring="softmax", balanced=False),
)  # fmt: skip
LATENT = LanguageConfig(
    vocab_size=4096, width=512, layers=4, heads=8, kv_heads=8, head_width=96, ffn_width=1024, max_positions=16384,
    attention=LatentConfig(kind="mla", kv_rank=128, rope_width=32, value_width=64),
)  # fmt: skip
PROMPT, STEPS, LATENT_PAST = 512, 32, 4096


def run(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Result]:
    ours, theirs = build_pair(LLAMA, "llama")
    what = f"{parameter_count(ours)} dense llama"
    tokens_BT = torch.randint(LLAMA.vocab_size, (1, PROMPT + STEPS))
    say("prefill")
    yield _prefill(what, ours, theirs, tokens_BT, rounds)
    say("decoding")
    yield _decode(what, "transformers", ours, theirs, tokens_BT, rounds)
    del theirs
    yield _reading(what, ours, tokens_BT, rounds)
    for dtype in (torch.float32, torch.float16):
        say(f"decoding, llama.cpp {dtype}")
        yield _llama_cpp(what, ours, tokens_BT, rounds, dtype)
    del ours
    yield from _mixture(rounds, say)
    say("latent attention")
    yield _latent(rounds)


def _prefill(what: str, ours: LanguageModel, theirs: nn.Module, tokens_BT: Tensor, rounds: int) -> Ratio:
    what, prompt_BT = f"prefill of {PROMPT} tokens, {what}", tokens_BT[:, :PROMPT]

    @torch.inference_mode()
    def mine() -> Tensor:
        hidden_BTD = ours.hidden(ours.embedding(prompt_BT), cache=_cache(ours, PROMPT))
        return ours.logits(hidden_BTD[:, -1:])

    @torch.inference_mode()
    def other() -> Tensor:
        return theirs(prompt_BT, use_cache=True, logits_to_keep=1).logits

    check_agreement(what, mine(), other())
    return alternate(what, "transformers", mine, other, rounds)


def _decode(
    what: str,
    peer: str,
    ours: LanguageModel,
    theirs: nn.Module,
    tokens_BT: Tensor,
    rounds: int,
    after_prompt: Callable[[], None] = lambda: None,
) -> Ratio:
    """The tokens are given, not chosen, so that both sides do the same whatever the last digit of a logit is."""
    what = _decoding(what)
    mine = _Steps(ours, tokens_BT)
    steps = tokens_BT[:, PROMPT:].split(1, dim=1)
    with torch.inference_mode():
        past = theirs(tokens_BT[:, :PROMPT], use_cache=True, logits_to_keep=1).past_key_values
    after_prompt()

    @torch.inference_mode()
    def other() -> Tensor:
        logits = [theirs(token_B1, past_key_values=past, use_cache=True).logits for token_B1 in steps]
        past.crop(-STEPS)
        return torch.cat(logits, 1)

    check_agreement(what, mine(), other())
    return alternate(what, peer, mine, other, rounds)


def _reading(what: str, ours: LanguageModel, tokens_BT: Tensor, rounds: int) -> Ratio:
    """Against the floor: one pass over the weights a token."""
    weights = [weight.detach() for weight in ours.parameters()]
    megabytes = sum(weight.nbytes for weight in weights) / 2**20

    def other() -> None:
        for _ in range(STEPS):
            for weight in weights:
                weight.sum()

    peer = f"a sum over the weights a token, {megabytes:.0f} MB"
    return alternate(_decoding(what), peer, _Steps(ours, tokens_BT), other, rounds)


def _llama_cpp(what: str, ours: LanguageModel, tokens_BT: Tensor, rounds: int, dtype: torch.dtype) -> Result:
    """Each side chooses its next token; the peer's last prompt token is the first of its steps."""

    @torch.inference_mode()
    def greedy() -> list[int]:
        steps.cache.length, chosen = PROMPT - 1, [int(tokens_BT[0, PROMPT - 1])]
        while len(chosen) <= STEPS:
            hidden_BTD = ours.hidden(ours.embedding(torch.tensor([chosen[-1:]])), cache=steps.cache)
            chosen.append(int(ours.logits(hidden_BTD).argmax()))
        return chosen[1:]

    name, steps = str(dtype).removeprefix("torch."), _Steps(ours, tokens_BT)
    with llama_cpp.served(ours, tokens_BT[0, :PROMPT].tolist(), STEPS, dtype) as other:
        if isinstance(other, str):
            return Missing(_decoding(what), f"llama.cpp, {name}", other)
        same = STEPS if dtype == torch.float32 else 1  # rounded weights may choose otherwise where two are near
        if greedy()[:same] != other()[:same]:
            raise AssertionError(f"{_decoding(what)}: ours and llama.cpp's tokens differ")
        return alternate(_decoding(what), f"llama.cpp, {name}", greedy, other, rounds)


def _mixture(rounds: int, say: Say) -> Iterator[Ratio]:
    ours, theirs = build_pair(MIXTURE, "qwen3_moe")
    assert MIXTURE.moe is not None
    tokens_BT = torch.randint(MIXTURE.vocab_size, (1, PROMPT + STEPS))
    experts = f"{MIXTURE.moe.experts} experts of {MIXTURE.moe.width}, {MIXTURE.moe.top_k} a token"
    what = f"{parameter_count(ours)} mixture, {experts}"
    for path, peer in EXPERT_PATHS.items():
        say(f"decoding, mixture, {path}")
        choose = partial(setattr, theirs.config, "_experts_implementation")
        choose("grouped_mm")  # the batched path copies an expert's weights for every row of the prompt
        yield _decode(what, f"transformers, {peer}", ours, theirs, tokens_BT, rounds, partial(choose, path))


def _latent(rounds: int) -> Ratio:
    what = f"decoding {STEPS} tokens behind {LATENT_PAST} with latent attention, absorbed"
    model, tokens_BT = LanguageModel(LATENT).eval(), torch.randint(LATENT.vocab_size, (1, LATENT_PAST + STEPS))
    attentions = [module for module in model.modules() if isinstance(module, LatentAttention)]
    steps = _Steps(model, tokens_BT)

    def in_form(form: Any) -> Tensor:
        for attention in attentions:
            attention.form = form
        return steps()

    check_agreement(what, in_form("absorbed"), in_form("expanded"))
    return alternate(what, "ours, expanded", lambda: in_form("absorbed"), lambda: in_form("expanded"), rounds)


class _Steps:
    """Logits `[1, T, V]` of the last `STEPS` tokens, read one by one behind a prompt that is read once."""

    def __init__(self, model: LanguageModel, tokens_BT: Tensor):
        self.model, self.past = model, tokens_BT.shape[1] - STEPS
        self.steps = tokens_BT[:, self.past :].split(1, dim=1)
        self.cache = _cache(model, tokens_BT.shape[1])
        with torch.inference_mode():
            for chunk in tokens_BT[:, : self.past].split(512, dim=1):
                model.hidden(model.embedding(chunk), cache=self.cache)

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        self.cache.length = self.past  # what an earlier round wrote behind is written over
        hidden = (self.model.hidden(self.model.embedding(token_B1), cache=self.cache) for token_B1 in self.steps)
        return torch.cat([self.model.logits(hidden_B1D) for hidden_B1D in hidden], 1)


def _decoding(what: str) -> str:
    return f"decoding {STEPS} tokens behind {PROMPT}, {what}"


def _cache(model: LanguageModel, capacity: int) -> KVCache:
    return KVCache(model.cfg, 1, capacity, like=model.embedding.weight)
