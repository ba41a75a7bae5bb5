"""Random models of every family: transformers and we give the same logits, whoever wrote the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published import VOCAB, gap, theirs, write
from transformers import AutoModelForCausalLM, PreTrainedModel

import vlm.language
from vlm.language import LanguageModel
from vlm.language.checkpoints.families import FAMILIES
from vlm.language.kv_cache import KVCache

YARN = {
    "rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8,
}  # fmt: skip
DENSE: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1, "head_dim": 16}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 3.0}}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 3.0}}),
    ("llama", {"rope_parameters": YARN}),
    ("llama", {"rope_parameters": YARN | {"attention_factor": 1.7, "truncate": False, "beta_slow": 2}}),
    ("llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }}),
    ("mistral", {"sliding_window": 4}),
    ("mistral", {"sliding_window": None, "head_dim": 12}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    ("qwen3", {"head_dim": 16}),
    ("qwen3", {"head_dim": 8, "attention_bias": True, "num_key_value_heads": 4}),
    ("qwen3", {
        "head_dim": 10, "use_sliding_window": True, "sliding_window": 3,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    }),
]  # fmt: skip
CASES = DENSE
TOLERANCE = 1e-4
"""Of the logits' scale, in float32."""


def label(value: object) -> str:
    return value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())[:60]  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{label(case[1])}")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, LanguageModel]:
    family, options = request.param
    expected = theirs(family, seed=len(options), **options)
    return expected, vlm.language.load(write(expected, tmp_path_factory.mktemp(family)))


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(VOCAB, (3, 21), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def test_logits_are_transformers(pair: tuple[PreTrainedModel, LanguageModel], tokens: torch.Tensor) -> None:
    expected, ours = pair
    assert gap(ours(tokens), expected(tokens).logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 21, [9, *[1] * 12], [5, 11, 5]])
def test_cached_logits_are_transformers(
    pair: tuple[PreTrainedModel, LanguageModel], tokens: torch.Tensor, chunks: list[int]
) -> None:
    expected, ours = pair
    cache = KVCache(ours.cfg, 3, 21, like=ours.embedding.weight)
    logits = torch.cat([ours(chunk, cache=cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    assert gap(logits, expected(tokens).logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_padded_batch_gives_what_transformers_and_single_calls_give(
    pair: tuple[PreTrainedModel, LanguageModel], tokens: torch.Tensor, side: str, cached: bool
) -> None:
    expected, ours = pair
    lengths = torch.tensor([21, 13, 6])
    places = torch.arange(21)[None]
    real = places >= 21 - lengths[:, None] if side == "left" else places < lengths[:, None]
    padded = tokens.masked_fill(~real, 0)
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    full = expected(padded, attention_mask=real.long(), position_ids=positions).logits
    if cached:
        cache = KVCache(ours.cfg, 3, 21, like=ours.embedding.weight)
        steps = [ours(padded[:, a:b], real[:, :b], cache) for a, b in [(0, 16), (16, 17), (17, 21)]]
        logits = torch.cat(steps, dim=1)
    else:
        logits = ours(padded, real)
    assert gap(logits[real], full[real]) < TOLERANCE
    for row, keep in enumerate(real):
        assert gap(logits[row, keep], ours(padded[row : row + 1, keep])[0]) < TOLERANCE


@torch.no_grad()
def test_what_we_save_is_what_transformers_loads(
    pair: tuple[PreTrainedModel, LanguageModel], tokens: torch.Tensor, tmp_path: Path
) -> None:
    expected, ours = pair
    vlm.language.save(ours, tmp_path / "model", format=expected.config.model_type)
    again, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    assert type(again) is type(expected)
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.state_dict().items())
    assert gap(again.eval()(tokens).logits, expected(tokens).logits) < 1e-6
    twice = vlm.language.load(tmp_path / "model")
    assert twice.cfg == ours.cfg
    assert all(torch.equal(tensor, twice.state_dict()[name]) for name, tensor in ours.state_dict().items())


@torch.no_grad()
def test_greedy_tokens_are_transformers_in_every_way(
    pair: tuple[PreTrainedModel, LanguageModel], tokens: torch.Tensor
) -> None:
    expected, ours = pair
    prompt = tokens[:1, :6]
    full = prompt
    for _ in range(10):
        full = torch.cat([full, expected(full).logits[:, -1:].argmax(-1)], dim=1)
    for chunks in ([6], [1] * 6, [4, 2]):
        cache = KVCache(ours.cfg, 1, 16, like=ours.embedding.weight)
        for chunk in prompt.split(chunks, dim=1):
            logits = ours(chunk, cache=cache)
        said = prompt
        for _ in range(10):
            said = torch.cat([said, logits[:, -1:].argmax(-1)], dim=1)
            logits = ours(said[:, -1:], cache=cache) if said.shape[1] < 16 else logits
        assert said.tolist() == full.tolist()


def test_every_family_has_a_case() -> None:
    assert {family for family, _ in CASES} == set(FAMILIES)
