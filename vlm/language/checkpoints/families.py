"""The families of published language models: keys and tensor names. A new family is a table here."""

from __future__ import annotations

from vlm.errors import BadInput, unknown
from vlm.language.checkpoints.family import Family, Fields
from vlm.language.checkpoints.parts import ALL_WINDOWED, HEAD_WIDTH, LAYER_TYPES, rope

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

FAMILIES = {family.name: family for family in DENSE}


def find(name: str) -> Family:
    """Raises `BadInput` for a family that is not here."""
    if name not in FAMILIES:
        raise unknown("language model family", name, FAMILIES)
    return FAMILIES[name]


def of_config(fields: Fields, where: str) -> Family:
    """The family whose `config.json` this is. Raises `BadInput` where it is none of these."""
    name = fields.get("model_type")
    if not isinstance(name, str):
        raise BadInput(f"{where}: key model_type: expected the name of a family, got {name!r}")
    return find(name)
