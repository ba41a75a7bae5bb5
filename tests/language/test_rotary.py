"""Each kind of rotary positions gives transformers' cosines and sines, within the original length and beyond it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import vlm.config
from vlm.language.attention.rotary import Rotary
from vlm.language.checkpoints.families import FAMILIES
from vlm.language.config import LanguageConfig

WIDTH, ORIGINAL = 12, 32
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
LONG = {
    "rope_type": "longrope", "original_max_position_embeddings": ORIGINAL, "factor": 4.0,
    "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 2.5], "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 9.0],
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "yarn": YARN | {"beta_fast": 8.0},
    "yarn mscales": YARN | {"mscale": 0.7, "mscale_all_dim": 0.9},
    "yarn factor": YARN | {"attention_factor": 1.3, "truncate": False},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": ORIGINAL},
    "longrope": LONG,
    "longrope factor": LONG | {"attention_factor": 1.2},
}  # fmt: skip


def both(kind: str) -> tuple[LlamaRotaryEmbedding, LanguageConfig]:
    longest = ORIGINAL if kind in ("plain", "linear", "dynamic") else 4 * ORIGINAL
    theirs = LlamaConfig(
        hidden_size=4 * WIDTH, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1, vocab_size=8,
        intermediate_size=8, max_position_embeddings=longest, rope_parameters={"rope_theta": 500.0, **KINDS[kind]},
    )  # fmt: skip
    return LlamaRotaryEmbedding(theirs), FAMILIES["llama"].read(theirs, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [ORIGINAL, 3 * ORIGINAL, 2**17])
def test_angles_are_transformers(kind: str, tokens: int) -> None:
    theirs, cfg = both(kind)
    positions = torch.arange(tokens)[None, -100:]
    expected = theirs(torch.zeros(()), positions)
    ours = Rotary(WIDTH, cfg.rope_theta, cfg.rope)(positions, torch.float32)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine[:, 0], other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_turn_by_the_angles_of_halves(kind: str) -> None:
    _, cfg = both(kind)
    rope = vlm.config.parse(
        LanguageConfig, cfg.model_dump() | {"rope": cfg.rope.model_dump() | {"interleaved": True}}, ""
    )
    positions = torch.arange(40)[None]
    halves = Rotary(WIDTH, 500.0, cfg.rope)(positions, torch.float32)
    neighbours = Rotary(WIDTH, 500.0, rope.rope)(positions, torch.float32)
    for half, near in zip(halves, neighbours, strict=True):
        assert torch.equal(near[..., ::2], half[..., : WIDTH // 2])
        assert torch.equal(near[..., 1::2], half[..., WIDTH // 2 :])


@pytest.mark.parametrize(
    ("kind", "context"),
    [("plain", 32), ("linear", 96), ("dynamic", 96), ("yarn", 128), ("llama3", 128), ("longrope", 128)],
)
def test_how_much_a_model_reads(kind: str, context: int) -> None:
    assert both(kind)[1].context == context


def test_divisors_of_longrope_are_one_a_pair() -> None:
    _, cfg = both("longrope")
    short = cfg.model_dump() | {"rope": cfg.rope.model_dump() | {"long_factor": (1.0, 2.0)}}
    with pytest.raises(ValueError, match=r"long_factor has 2 numbers, expected one for each of 6 rotated pairs"):
        LanguageConfig.model_validate(short)
