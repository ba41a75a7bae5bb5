"""The families of published language models: keys and tensor names. A new family is a table in `FAMILIES`."""

from __future__ import annotations

from vlm.errors import BadInput, unknown
from vlm.language.checkpoints.family import Family, Fields, Part
from vlm.language.checkpoints.parts import (
    ALL_WINDOWED,
    FIRST_DENSE,
    HEAD_WIDTH,
    INTERVAL,
    LATENT,
    LAYER_TYPES,
    MLP_TYPES,
    ORIGINAL_ROUTING,
    QK_NORM,
    SPARSE_STEP,
    STEP_AFTER_DENSE,
    V2_ROUTING,
    WHOLE_HEADS,
    original_rope,
    rope,
    shared_experts,
)
from vlm.registry import Registry

COMMON_KEYS = {
    "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "ffn_width": "intermediate_size", "max_positions": "max_position_embeddings", "norm_eps": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
}  # fmt: skip
GQA_KEYS = COMMON_KEYS | {"kv_heads": "num_key_value_heads"}
BIASED = {"attention.qkv_bias": "attention_bias", "attention.o_bias": "attention_bias"}
GQA: Fields = {"attention.kind": "gqa"}

COMMON_TENSORS = {
    "embedding": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head",
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention.o_proj": "self_attn.o_proj",
    "ffn.gate_proj": "mlp.gate_proj", "ffn.up_proj": "mlp.up_proj", "ffn.down_proj": "mlp.down_proj",
}  # fmt: skip
GQA_TENSORS = COMMON_TENSORS | {
    "attention.q_proj": "self_attn.q_proj", "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.q_norm": "self_attn.q_norm", "attention.k_norm": "self_attn.k_norm",
}  # fmt: skip

FREQUENCIES = r".*\.rotary_emb\.inv_freq"
"""Old checkpoints hold what follows from the config."""

DENSE = (
    Family(
        name="llama", architecture="LlamaForCausalLM",
        keys=GQA_KEYS | BIASED | {"ffn_bias": "mlp_bias"}, fixed=GQA,
        parts=(rope(), HEAD_WIDTH), tensors=GQA_TENSORS, extra=(FREQUENCIES,),
    ),
    Family(
        name="mistral", architecture="MistralForCausalLM",
        keys=GQA_KEYS, fixed=GQA,
        parts=(rope(), HEAD_WIDTH, ALL_WINDOWED), tensors=GQA_TENSORS, extra=(FREQUENCIES,),
    ),
    Family(
        name="qwen2", architecture="Qwen2ForCausalLM",
        keys=GQA_KEYS, fixed=GQA | {"attention.qkv_bias": True},
        parts=(rope(), HEAD_WIDTH, LAYER_TYPES), tensors=GQA_TENSORS,
    ),
    Family(
        name="qwen3", architecture="Qwen3ForCausalLM",
        keys=GQA_KEYS | BIASED, fixed=GQA | {"attention.qk_norm": "head"},
        parts=(rope(), HEAD_WIDTH, LAYER_TYPES), tensors=GQA_TENSORS,
    ),
)  # fmt: skip

SOFTMAX: Fields = {"moe.scoring": "softmax", "moe.balanced": False}
UNSHARED: Fields = {"moe.shared_width": 0}
QWEN_MOE_KEYS = GQA_KEYS | {
    "moe.experts": "num_experts", "moe.top_k": "num_experts_per_tok", "moe.width": "moe_intermediate_size",
    "moe.normalise": "norm_topk_prob",
}  # fmt: skip
DEEPSEEK_MOE_KEYS = {
    "moe.experts": "n_routed_experts", "moe.top_k": "num_experts_per_tok", "moe.width": "moe_intermediate_size",
    "moe.scale": "routed_scaling_factor",
}  # fmt: skip
GROUPED_KEYS = {"moe.normalise": "norm_topk_prob", "moe.groups": "n_group", "moe.groups_kept": "topk_group"}
V3_ROUTING: Fields = {"moe.scoring": "sigmoid", "moe.balanced": True, "moe.group_score": "top2"}

MOE_TENSORS = {
    "ffn.router.centroids": "mlp.gate", "ffn.router.bias_E": "mlp.gate.e_score_correction_bias",
    "ffn.shared.gate_proj": "mlp.shared_experts.gate_proj", "ffn.shared.up_proj": "mlp.shared_experts.up_proj",
    "ffn.shared.down_proj": "mlp.shared_experts.down_proj", "ffn.routed.gate_EFD": "mlp.experts.*.gate_proj.weight",
    "ffn.routed.up_EFD": "mlp.experts.*.up_proj.weight", "ffn.routed.down_EDF": "mlp.experts.*.down_proj.weight",
}  # fmt: skip
QWEN2_MOE_TENSORS = {
    "ffn.shared.gate_proj": "mlp.shared_expert.gate_proj", "ffn.shared.up_proj": "mlp.shared_expert.up_proj",
    "ffn.shared.down_proj": "mlp.shared_expert.down_proj", "ffn.shared_gate": "mlp.shared_expert_gate",
}  # fmt: skip
MULTI_TOKEN_KEY = "num_nextn_predict_layers"
MULTI_TOKEN_TENSORS = {
    "embedding_norm": "enorm", "hidden_norm": "hnorm", "projection": "eh_proj", "output_norm": "shared_head.norm",
}  # fmt: skip
MIXTRAL_TENSORS = {
    "ffn.router.centroids": "block_sparse_moe.gate", "ffn.routed.gate_EFD": "block_sparse_moe.experts.*.w1.weight",
    "ffn.routed.up_EFD": "block_sparse_moe.experts.*.w3.weight",
    "ffn.routed.down_EDF": "block_sparse_moe.experts.*.w2.weight",
}  # fmt: skip

MIXTURES = (
    Family(
        name="qwen2_moe", architecture="Qwen2MoeForCausalLM",
        keys=QWEN_MOE_KEYS | {
            "attention.qkv_bias": "qkv_bias", "moe.shared_width": "shared_expert_intermediate_size",
        },
        fixed=GQA | SOFTMAX | {"moe.shared_gate": True},
        parts=(rope(), HEAD_WIDTH, LAYER_TYPES, SPARSE_STEP),
        tensors=GQA_TENSORS | MOE_TENSORS | QWEN2_MOE_TENSORS, dense_without_experts=True,
    ),
    Family(
        name="qwen3_moe", architecture="Qwen3MoeForCausalLM",
        keys=QWEN_MOE_KEYS | BIASED, fixed=GQA | SOFTMAX | UNSHARED | {"attention.qk_norm": "head"},
        parts=(rope(), HEAD_WIDTH, ALL_WINDOWED, SPARSE_STEP), tensors=GQA_TENSORS | MOE_TENSORS,
        dense_without_experts=True,
    ),
    Family(
        name="mixtral", architecture="MixtralForCausalLM",
        keys=GQA_KEYS | {
            "moe.experts": "num_local_experts", "moe.top_k": "num_experts_per_tok", "moe.width": "intermediate_size",
        },
        fixed=GQA | SOFTMAX | UNSHARED, parts=(rope(), HEAD_WIDTH, ALL_WINDOWED),
        tensors=GQA_TENSORS | MIXTRAL_TENSORS,
    ),
    Family(
        name="olmoe", architecture="OlmoeForCausalLM",
        keys=QWEN_MOE_KEYS | BIASED | {"moe.width": "intermediate_size", "attention.clip": "clip_qkv"},
        fixed=GQA | SOFTMAX | UNSHARED | {"attention.qk_norm": "all"},
        parts=(rope(), WHOLE_HEADS), tensors=GQA_TENSORS | MOE_TENSORS,
    ),
    Family(
        name="glm4_moe", architecture="Glm4MoeForCausalLM",
        keys=GQA_KEYS | DEEPSEEK_MOE_KEYS | GROUPED_KEYS | {"attention.qkv_bias": "attention_bias"},
        fixed=GQA | V3_ROUTING,
        parts=(rope(partial=True), HEAD_WIDTH, QK_NORM, FIRST_DENSE, shared_experts("n_shared_experts")),
        tensors=GQA_TENSORS | MOE_TENSORS | MULTI_TOKEN_TENSORS, multi_token=MULTI_TOKEN_KEY,
    ),
    Family(
        name="ernie4_5_moe", architecture="Ernie4_5_MoeForCausalLM",
        keys=GQA_KEYS | {
            "attention.qkv_bias": "use_bias", "attention.o_bias": "use_bias", "ffn_bias": "use_bias",
            "head_bias": "use_bias",
            "moe.experts": "moe_num_experts", "moe.top_k": "moe_k", "moe.width": "moe_intermediate_size",
        },
        fixed=GQA | {"moe.scoring": "softmax", "moe.balanced": True},
        parts=(rope(interleaved=True), HEAD_WIDTH, INTERVAL, shared_experts("moe_num_shared_experts")),
        tensors=GQA_TENSORS | MOE_TENSORS | {"ffn.router.bias_E": "mlp.moe_statics.e_score_correction_bias"},
        leading_axis=("ffn.router.bias_E",), extra=(r"model\.mtp_.*",),
    ),
)  # fmt: skip

MLA_KEYS = COMMON_KEYS | {
    "attention.kv_rank": "kv_lora_rank", "attention.q_rank": "q_lora_rank", "attention.rope_width": "qk_rope_head_dim",
    "attention.value_width": "v_head_dim", "attention.bias": "attention_bias",
}  # fmt: skip
MLA: Fields = {"attention.kind": "mla"}
MLA_TENSORS = COMMON_TENSORS | MOE_TENSORS | {
    "attention.q_proj": "self_attn.q_proj", "attention.q_down": "self_attn.q_a_proj",
    "attention.q_norm": "self_attn.q_a_layernorm", "attention.q_up": "self_attn.q_b_proj",
    "attention.kv_down": "self_attn.kv_a_proj_with_mqa", "attention.kv_norm": "self_attn.kv_a_layernorm",
    "attention.kv_up": "self_attn.kv_b_proj",
}  # fmt: skip

INDEXER_KEYS = {
    "attention.indexer.heads": "index_n_heads", "attention.indexer.head_width": "index_head_dim",
    "attention.indexer.top_k": "index_topk",
}  # fmt: skip
INDEXER_TENSORS = {
    f"attention.indexer.{name}": f"self_attn.indexer.{name}" for name in ("wq_b", "wk", "k_norm", "weights_proj")
}

DEEPSEEK_V1 = Family(
    name="deepseek", architecture="DeepseekForCausalLM",
    keys=GQA_KEYS | BIASED | DEEPSEEK_MOE_KEYS | {"moe.normalise": "norm_topk_prob"}, fixed=GQA | SOFTMAX,
    parts=(rope(), WHOLE_HEADS, STEP_AFTER_DENSE, shared_experts("n_shared_experts")),
    tensors=GQA_TENSORS | MOE_TENSORS, extra=(FREQUENCIES,), dense_without_experts=True,
    defaults={
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407,
        "num_hidden_layers": 30, "num_attention_heads": 32, "num_key_value_heads": None, "n_shared_experts": None,
        "n_routed_experts": None, "num_experts_per_tok": None, "moe_layer_freq": 1, "first_k_dense_replace": 0,
        "norm_topk_prob": False, "routed_scaling_factor": 1.0, "hidden_act": "silu", "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0, "attention_bias": False,
    },
)  # fmt: skip
"""DeepSeekMoE-16B."""

DEEPSEEK = (
    DEEPSEEK_V1,
    Family(
        name="deepseek_v2", architecture="DeepseekV2ForCausalLM",
        keys=MLA_KEYS | DEEPSEEK_MOE_KEYS, fixed=MLA,
        parts=(rope(interleaved=True), LATENT, V2_ROUTING, FIRST_DENSE, shared_experts("n_shared_experts")),
        tensors=MLA_TENSORS,
    ),
    Family(
        name="deepseek_v3", architecture="DeepseekV3ForCausalLM",
        keys=MLA_KEYS | DEEPSEEK_MOE_KEYS | GROUPED_KEYS, fixed=MLA | V3_ROUTING,
        parts=(rope(interleaved="rope_interleave"), LATENT, FIRST_DENSE, shared_experts("n_shared_experts")),
        tensors=MLA_TENSORS | MULTI_TOKEN_TENSORS, multi_token=MULTI_TOKEN_KEY,
    ),
    Family(
        name="deepseek_v32", architecture="DeepseekV32ForCausalLM",
        keys=MLA_KEYS | INDEXER_KEYS | DEEPSEEK_MOE_KEYS | GROUPED_KEYS, fixed=MLA | V3_ROUTING,
        parts=(rope(interleaved=True), LATENT, MLP_TYPES, shared_experts("n_shared_experts")),
        tensors=MLA_TENSORS | INDEXER_TENSORS | MULTI_TOKEN_TENSORS, multi_token=MULTI_TOKEN_KEY,
    ),
)  # fmt: skip

ORIGINAL_V2_DEFAULTS: Fields = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407,
    "num_hidden_layers": 30, "num_attention_heads": 32, "num_key_value_heads": 32, "n_shared_experts": None,
    "n_routed_experts": None, "num_experts_per_tok": None, "routed_scaling_factor": 1.0, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "topk_method": "greedy",
    "n_group": None, "topk_group": None, "moe_layer_freq": 1, "first_k_dense_replace": 0, "norm_topk_prob": False,
    "scoring_func": "softmax", "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "rope_theta": 10000.0, "attention_bias": False,
}  # fmt: skip


def original_v2(fields: Fields) -> Family:
    """`deepseek_v2` as its authors' own code reads it, which is more than transformers' class of that name: latent or
    grouped-query attention (`use_mla`), any routing, other defaults. The language models of DeepSeek-VL2."""
    latent = fields.get("use_mla") is not False
    keys, fixed, tensors = (MLA_KEYS, MLA, MLA_TENSORS) if latent else (GQA_KEYS | BIASED, GQA, GQA_TENSORS)
    parts: tuple[Part, ...] = (original_rope(interleaved=latent), LATENT if latent else WHOLE_HEADS)
    if fields.get("n_routed_experts") is not None:
        keys = keys | DEEPSEEK_MOE_KEYS
        parts = (*parts, ORIGINAL_ROUTING, STEP_AFTER_DENSE, shared_experts("n_shared_experts"))
    return Family(
        name="deepseek_v2", architecture="DeepseekV2ForCausalLM", keys=keys, fixed=fixed, parts=parts,
        tensors=tensors | MOE_TENSORS, extra=(FREQUENCIES,), defaults=ORIGINAL_V2_DEFAULTS,
    )  # fmt: skip


FAMILIES: Registry[Family] = Registry("language model family")
for _family in (*DENSE, *MIXTURES, *DEEPSEEK):
    FAMILIES.register(_family.name, _family)


def find(name: str) -> Family:
    """Raises `BadInput` for a family that is not here."""
    return FAMILIES[name]


def of_config(fields: Fields, where: str) -> Family:
    """The family whose `config.json` this is. Raises `BadInput` where it is none of these."""
    name = fields.get("model_type")
    if not isinstance(name, str):
        raise BadInput(f"{where}: key model_type: expected the name of a family, got {name!r}")
    if name == "deepseek_v2" and fields.get("use_mla") is False:
        return original_v2(fields)
    if name not in FAMILIES:
        raise BadInput(f"{where}: {unknown('language model family', name, FAMILIES)}")
    return FAMILIES[name]
