"""Projectors from checkpoints as their authors publish them, under our names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_ATTENTION = {
    "attention.query": "q_proj", "attention.key": "k_proj", "attention.value": "v_proj", "output.dense": "o_proj",
}  # fmt: skip
Q_FORMER = {
    **{f"attention.{theirs}": f"self_attention.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"crossattention.{theirs}": f"cross_attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "attention.output.LayerNorm": "self_norm", "crossattention.output.LayerNorm": "cross_norm",
    "intermediate_query.dense": "up", "output_query.dense": "down", "output_query.LayerNorm": "ffn_norm",
}  # fmt: skip
"""Modules of a layer, theirs -> ours. A checkpoint that also reads texts has more of them, which are for the texts."""
LAYER = "qformer.encoder.layer."


def from_blip2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `QFormer`'s tensors out of a BLIP-2 model's (transformers' names), without its last matrix.

    That one, `language_projection`, leads to BLIP-2's own language model. Raises `ValueError` where there are none.
    """
    ours = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if name == "query_tokens":
            ours["queries_MQ"] = tensor[0]
        elif module == "qformer.layernorm":
            ours[f"norm.{kind}"] = tensor
        elif module.startswith(LAYER):
            number, _, rest = module.removeprefix(LAYER).partition(".")
            if rest in Q_FORMER:
                ours[f"layers.{number}.{Q_FORMER[rest]}.{kind}"] = tensor
    if "queries_MQ" not in ours:
        raise ValueError("no tensor query_tokens, expected those of a BLIP-2 model")
    return ours
