"""Random models of every family: transformers and we give the same logits, whoever wrote the folder."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published import BASE, VOCAB, gap, theirs, write
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import DeepseekOcr2TextConfig
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2TextModel

import vlm.language
from vlm.language import LanguageModel
from vlm.language.attention.kv_cache import KVCache
from vlm.language.attention.latent import LatentAttention
from vlm.language.checkpoints.families import FAMILIES

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
    ("llama", {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 5000.0, "factor": 2.0, "original_max_position_embeddings": 32,
        "short_factor": [1.0, 1.1, 1.3, 2.0], "long_factor": [1.0, 2.0, 4.0, 8.0],
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
MIXTURES: list[tuple[str, dict[str, Any]]] = [
    ("qwen2_moe", {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "norm_topk_prob": True,
                   "shared_expert_intermediate_size": 24, "mlp_only_layers": [1]}),
    ("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 12, "qkv_bias": False,
                   "shared_expert_intermediate_size": 20, "decoder_sparse_step": 2, "tie_word_embeddings": True,
                   "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}),
    ("qwen3_moe", {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True,
                   "head_dim": 16}),
    ("qwen3_moe", {"num_experts": 8, "num_experts_per_tok": 8, "moe_intermediate_size": 8, "head_dim": 8,
                   "mlp_only_layers": [0, 2], "attention_bias": True}),
    ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8,
                   "use_sliding_window": True, "sliding_window": 5, "rope_parameters": YARN}),
    ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("mixtral", {"num_local_experts": 6, "num_experts_per_tok": 3, "sliding_window": 6, "head_dim": 12}),
    ("olmoe", {"num_experts": 6, "num_experts_per_tok": 3}),
    ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True, "clip_qkv": 0.7,
               "attention_bias": True, "tie_word_embeddings": True}),
    ("glm4_moe", {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_group": 4,
                  "topk_group": 2, "head_dim": 16, "use_qk_norm": True, "routed_scaling_factor": 1.7}),
    ("glm4_moe", {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "n_shared_experts": 2,
                  "head_dim": 8, "attention_bias": True, "first_k_dense_replace": 2, "norm_topk_prob": False,
                  "partial_rotary_factor": 0.75}),
    ("ernie4_5_moe", {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 16}),
    ("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 3, "moe_intermediate_size": 12, "moe_num_shared_experts": 0,
                      "use_bias": True, "tie_word_embeddings": False, "num_hidden_layers": 5, "head_dim": 16,
                      "moe_layer_start_index": 1, "moe_layer_end_index": 3, "moe_layer_interval": 2}),
    ("ernie4_5_moe", {"moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 12, "moe_num_shared_experts": 1,
                      "moe_layer_start_index": 0}),
]  # fmt: skip
MLA = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "num_experts_per_tok": 3, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
}  # fmt: skip
MSCALES = YARN | {"mscale": 0.7, "mscale_all_dim": 0.9}
LATENT: list[tuple[str, dict[str, Any]]] = [
    ("deepseek_v2", MLA | {"n_routed_experts": 6, "q_lora_rank": None}),
    ("deepseek_v2", MLA | {"n_routed_experts": 8, "q_lora_rank": 12, "topk_method": "group_limited_greedy",
                           "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5, "rope_parameters": MSCALES}),
    ("deepseek_v2", MLA | {"n_routed_experts": 6, "q_lora_rank": 20, "attention_bias": True, "n_shared_experts": 1,
                           "rope_parameters": YARN, "tie_word_embeddings": True, "first_k_dense_replace": 0}),
    ("deepseek_v3", MLA | {"n_routed_experts": 8, "q_lora_rank": 12, "n_group": 4, "topk_group": 2}),
    ("deepseek_v3", MLA | {"n_routed_experts": 6, "q_lora_rank": None, "n_group": 1, "topk_group": 1,
                           "rope_parameters": MSCALES, "rope_interleave": False, "norm_topk_prob": False}),
    ("deepseek_v3", MLA | {"n_routed_experts": 12, "q_lora_rank": 8, "n_group": 2, "topk_group": 1,
                           "n_shared_experts": 2, "attention_bias": True, "routed_scaling_factor": 1.0,
                           "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
                           "tie_word_embeddings": True, "first_k_dense_replace": 2}),
]  # fmt: skip
DSA = MLA | {
    "n_routed_experts": 8, "q_lora_rank": 12, "n_group": 4, "topk_group": 2, "index_n_heads": 16, "index_head_dim": 12,
}  # fmt: skip
SPARSE: list[tuple[str, dict[str, Any]]] = [
    ("deepseek_v32", DSA | {"index_topk": 6, "rope_parameters": MSCALES}),
    ("deepseek_v32", DSA | {"index_topk": 30, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
]
CASES = [*DENSE, *MIXTURES, *LATENT, *SPARSE]
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
    latent = isinstance(ours.layers[0].attention, LatentAttention)
    ways = itertools.product(([6], [1] * 6, [4, 2]), ("auto", "absorbed", "expanded") if latent else ("auto",))
    for chunks, form in ways:
        for layer in ours.layers:
            layer.attention.form = form
        cache = KVCache(ours.cfg, 1, 16, like=ours.embedding.weight)
        for chunk in prompt.split(chunks, dim=1):
            logits = ours(chunk, cache=cache)
        said = prompt
        for _ in range(10):
            said = torch.cat([said, logits[:, -1:].argmax(-1)], dim=1)
            logits = ours(said[:, -1:], cache=cache) if said.shape[1] < 16 else logits
        assert said.tolist() == full.tolist()


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["deepseek", "deepseek_v2"])
def test_deepseek_v1_is_the_text_model_of_deepseek_ocr2(tmp_path: Path, tokens: torch.Tensor, model_type: str) -> None:
    """transformers has no class for the first DeepSeek family, but one of the same decoder. DeepSeek-VL2-Tiny calls
    itself a second DeepSeek without latent attention."""
    own = {
        "n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_shared_experts": 2,
        "num_key_value_heads": 4, "routed_scaling_factor": 1.0, "topk_method": "greedy", "rms_norm_eps": 1e-6,
    }  # fmt: skip
    rope_parameters = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
    config = DeepseekOcr2TextConfig(
        **BASE | own, mlp_layer_types=["dense", "sparse", "sparse"], rope_parameters=dict(rope_parameters)
    )
    torch.manual_seed(0)
    expected = DeepseekOcr2TextModel._from_config(config, attn_implementation="eager").eval()
    head = torch.randn(VOCAB, 32) / 32**0.5
    state = {"lm_head.weight": head}
    for name, tensor in expected.state_dict().items():
        tensor.normal_(std=tensor.shape[-1] ** -0.5) if tensor.ndim > 1 else tensor.uniform_(0.5, 1.5)
        if ".experts." not in name:
            state[f"model.{name}"] = tensor.clone()
            continue
        prefix, parts = f"model.{name.rpartition('.')[0]}", ("gate", "up") if "gate_up" in name else ("down",)
        for expert, whole in enumerate(tensor):
            rows = whole.chunk(len(parts))
            state |= {f"{prefix}.{expert}.{p}_proj.weight": r.clone() for p, r in zip(parts, rows, strict=True)}
    fields = BASE | own | {"model_type": model_type, "use_mla": False, "first_k_dense_replace": 1}
    fields |= {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "hidden_act": "silu"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    save_file(state, tmp_path / "model.safetensors")
    ours = vlm.language.load(tmp_path)
    assert gap(ours(tokens), expected(tokens).last_hidden_state @ head.T) < TOLERANCE

    vlm.language.save(ours, tmp_path / "again", format="deepseek")
    written = load_file(tmp_path / "again" / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in written.items())
    again = vlm.language.load(tmp_path / "again")
    assert again.cfg.is_mixture(1)
    assert torch.equal(again(tokens), ours(tokens))


def test_every_family_has_a_case() -> None:
    assert {family for family, _ in CASES} == set(FAMILIES) - {"deepseek"}
