"""`deepseek_v2` as its authors' own code reads it: against transformers where it has the same model under another name,
and against the rules written out where it has none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from published import BASE, gap, theirs, write

from vlm.errors import BadInput
from vlm.language.checkpoints.families import original_v2
from vlm.language.checkpoints.folder import read_model
from vlm.language.config import LanguageConfig
from vlm.language.decoder import LanguageModel
from vlm.weights.tensors import open_tensors

MOE: dict[str, Any] = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}  # fmt: skip
MLA = {"kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 10, "num_key_value_heads": 4}
BIASED_CHOICE = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True}


def read(fields: dict[str, Any]) -> LanguageConfig:
    family = original_v2(fields)
    return family.read(family.parse(fields, "here"), "here")


def load(folder: Path, fields: dict[str, Any]) -> LanguageModel:
    return read_model(fields, original_v2(fields), open_tensors(folder), folder)


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0, "mscale_all_dim": 0.7}


@torch.no_grad()
@pytest.mark.parametrize("q_rank", [None, 14])
@pytest.mark.parametrize("yarn", [False, True])
def test_latent_attention_with_sigmoid_scores_is_deepseek_v3(tmp_path: Path, q_rank: int | None, yarn: bool) -> None:
    groups = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7}
    rope = {"rope_type": "yarn", "rope_theta": 1e4, **{k: v for k, v in YARN.items() if k != "type"}}
    own = MOE | MLA | groups | {"q_lora_rank": q_rank, "norm_topk_prob": True}
    expected = theirs("deepseek_v3", **own, **({"rope_parameters": rope} if yarn else {}))
    fields = BASE | own | BIASED_CHOICE | ({"rope_scaling": YARN} if yarn else {})
    tokens = torch.randint(60, (2, 24))
    assert gap(load(write(expected, tmp_path), fields)(tokens), expected(tokens).logits) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("method", ["greedy", "group_limited_greedy"])
def test_softmax_scores_that_are_not_normalised_are_deepseek_v2(tmp_path: Path, method: str) -> None:
    own = MOE | MLA | {"q_lora_rank": 14, "topk_method": method, "n_group": 4, "topk_group": 2}
    own |= {"routed_scaling_factor": 2.5}
    expected = theirs("deepseek_v2", **own)
    tokens = torch.randint(60, (2, 20))
    assert gap(load(write(expected, tmp_path), BASE | own)(tokens), expected(tokens).logits) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_grouped_query_attention_without_experts_is_llama(tmp_path: Path, bias: bool) -> None:
    rope = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
    expected = theirs("llama", attention_bias=bias, rope_parameters=rope, rms_norm_eps=1e-6)
    fields = BASE | {"use_mla": False, "attention_bias": bias, "rope_theta": 5000.0}
    fields |= {"rope_scaling": {"type": "linear", "factor": 2.0}}
    tokens = torch.randint(60, (2, 20))
    assert gap(load(write(expected, tmp_path), fields)(tokens), expected(tokens).logits) < 1e-4


def plain_gates(logits: list[float], bias: list[float], fields: dict[str, Any]) -> dict[int, float]:
    """The routing of one token, written out."""
    if fields["scoring_func"] == "sigmoid":
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        scores = [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]
    method, experts = fields["topk_method"], range(len(scores))
    value = [s + b for s, b in zip(scores, bias, strict=True)] if method == "noaux_tc" else scores
    allowed = [*experts]
    if method != "greedy":
        size = len(scores) // fields["n_group"]
        members = [range(g * size, (g + 1) * size) for g in range(fields["n_group"])]
        best = 2 if method == "noaux_tc" else 1
        worth = [sum(sorted((value[e] for e in group), reverse=True)[:best]) for group in members]
        kept = sorted(range(len(members)), key=lambda g: -worth[g])[: fields["topk_group"]]
        allowed = [e for g in kept for e in members[g]]
    chosen = sorted(allowed, key=lambda e: -value[e])[: fields["num_experts_per_tok"]]
    total = sum(scores[e] for e in chosen) if fields["norm_topk_prob"] and len(chosen) > 1 else 1.0
    return {e: scores[e] / total * fields["routed_scaling_factor"] for e in chosen}


@torch.no_grad()
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("method", ["greedy", "group_limited_greedy", "noaux_tc"])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("latent", [False, True])
def test_every_routing_with_either_attention(
    scoring: str, method: str, normalise: bool, top_k: int, latent: bool
) -> None:
    fields = BASE | MOE | {
        "scoring_func": scoring, "topk_method": method, "norm_topk_prob": normalise, "num_experts_per_tok": top_k,
        "routed_scaling_factor": 1.5, "n_group": 4, "topk_group": 2,
    } | (MLA if latent else {"use_mla": False})  # fmt: skip
    torch.manual_seed(0)
    router = LanguageModel(read(fields)).routers()[0].eval()
    router.bias_E.normal_(std=0.2)
    if method != "noaux_tc":
        router.bias_E.zero_()
    x_TD = torch.randn(40, 32)
    gates_Tk, chosen_Tk = router(x_TD)
    for logits, gates, chosen in zip(router.centroids(x_TD), gates_Tk, chosen_Tk, strict=True):
        expected = plain_gates(logits.tolist(), router.bias_E.tolist(), fields)
        assert dict(zip(chosen.tolist(), gates.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)


def test_no_expert_outside_the_kept_groups_is_ever_chosen() -> None:
    fields = BASE | MOE | BIASED_CHOICE | {"use_mla": False, "n_group": 2, "topk_group": 1}
    router = LanguageModel(read(fields)).routers()[0]
    router.bias_E.copy_(torch.tensor([0.0, 0.0, -5.0, -5.0, -1.0, -1.0, -1.0, -1.0]))
    chosen_Tk = router.choose(torch.full((1, 8), 0.5))
    assert (chosen_Tk < 4).all(), "an expert worth less than nothing comes before one that is not allowed"


def test_what_a_config_leaves_out() -> None:
    cfg = read({"n_routed_experts": 8, "num_experts_per_tok": 2})
    assert cfg.attention.kind == "mla"
    assert (cfg.attention.q_rank, cfg.attention.kv_rank, cfg.attention.rope_width) == (1536, 512, 64)
    assert (cfg.head_width, cfg.attention.value_width, cfg.norm_eps, cfg.rope_theta) == (192, 128, 1e-6, 10000.0)
    assert (cfg.vocab_size, cfg.width, cfg.layers, cfg.heads, cfg.ffn_width) == (102400, 4096, 30, 32, 11008)
    assert cfg.moe is not None
    assert (cfg.moe.scoring, cfg.moe.normalise, cfg.moe.scale, cfg.moe.balanced) == ("softmax", False, 1.0, False)
    assert (cfg.moe.width, cfg.shared_width()) == (1407, 0)
    assert read({"use_mla": False}).moe is None


def test_the_mixture_layers() -> None:
    cfg = read(BASE | MOE | {"num_hidden_layers": 7, "moe_layer_freq": 2, "first_k_dense_replace": 3})
    assert [layer for layer in range(7) if cfg.is_mixture(layer)] == [4, 6]


@pytest.mark.parametrize(
    ("given", "amplitude", "scores"),
    [
        ({}, (1.0, 0.0), 0.0),
        ({"mscale": 0.5}, (0.5, 0.0), 0.0),
        ({"mscale_all_dim": 0.707}, (1.0, 0.707), 0.707),
        ({"mscale": 0.707, "mscale_all_dim": 0.707}, (0.707, 0.707), 0.707),
    ],
)
def test_the_temperatures_of_yarn(given: dict[str, float], amplitude: tuple[float, float], scores: float) -> None:
    def mscale(value: float) -> float:
        return 0.1 * value * math.log(40.0) + 1

    rope = read(BASE | MLA | {"rope_scaling": {"type": "yarn", "factor": 40.0, **given}}).rope
    assert rope.amplitude == pytest.approx(mscale(amplitude[0]) / mscale(amplitude[1]))
    assert rope.score_scale == pytest.approx(mscale(scores) ** 2)
    assert rope.original_positions == 4096  # type: ignore[union-attr]


def test_routing_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadInput, match="here: key topk_method: 'best' is not one this decoder knows"):
        read(BASE | MOE | {"topk_method": "best"})


def test_a_language_model_alone_is_read_the_same_way(tmp_path: Path) -> None:
    import vlm.language

    expected = theirs("llama", rms_norm_eps=1e-6)
    fields = BASE | {"use_mla": False, "model_type": "deepseek_v2"}
    (write(expected, tmp_path) / "config.json").write_text(json.dumps(fields))
    assert vlm.language.load(tmp_path).cfg == read(fields)
