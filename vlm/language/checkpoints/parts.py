"""The pieces of published configs that are more than a renamed key: rotary positions, windows, mixture layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vlm.language.checkpoints.family import Fields, Part
from vlm.language.config import LanguageConfig
from vlm.language.config.attention import LatentConfig
from vlm.language.config.rotary import temperature

YARN_KEYS = ("mscale", "mscale_all_dim", "beta_fast", "beta_slow", "attention_factor", "truncate")
LONGROPE_KEYS = ("short_factor", "long_factor", "attention_factor")


def rope(interleaved: bool | str = False, partial: bool = False) -> Part:
    """`interleaved`: what the family does, or the key that says it; `partial`: a share of a head may be rotated."""

    def read(theirs: Any) -> Fields:
        given = theirs.rope_parameters
        pairs = getattr(theirs, interleaved) if isinstance(interleaved, str) else interleaved
        ours = {"interleaved": pairs, "share": given.get("partial_rotary_factor", 1.0) if partial else 1.0}
        kind = given["rope_type"]
        if kind in ("linear", "dynamic", "llama3", "yarn", "longrope"):
            original = given.get("original_max_position_embeddings") or theirs.max_position_embeddings
            ours |= {"kind": kind, "factor": given.get("factor") or theirs.max_position_embeddings / original}
            if kind == "dynamic":
                original = theirs.max_position_embeddings
            if kind != "linear":
                ours["original_positions"] = original
            if kind == "yarn":
                ours |= {key: given[key] for key in YARN_KEYS if given.get(key) is not None}
            elif kind == "llama3":
                ours |= {key: given[key] for key in ("low_freq_factor", "high_freq_factor")}
            elif kind == "longrope":
                ours |= {key: given[key] for key in LONGROPE_KEYS if given.get(key) is not None}
        elif kind == "default":
            ours["kind"] = "plain"
        else:
            raise ValueError(f"key rope_parameters: rope_type {kind!r} is not one this decoder knows")
        if kind not in ("default", "yarn") and given.get("mscale_all_dim"):
            raise ValueError(f"key rope_parameters: mscale_all_dim is known with rope_type yarn, got {kind!r}")
        return {"rope_theta": given["rope_theta"], "rope": ours}

    def write(cfg: LanguageConfig) -> Fields:
        theirs = cfg.rope.model_dump(exclude={"kind", "interleaved", "share", "original_positions"}, exclude_none=True)
        theirs |= {"rope_type": cfg.rope.kind.replace("plain", "default"), "rope_theta": cfg.rope_theta}
        if cfg.rope.kind in ("llama3", "yarn", "longrope"):
            theirs["original_max_position_embeddings"] = cfg.rope.original_positions
        if partial:
            theirs["partial_rotary_factor"] = cfg.rope.share
        fields: Fields = {"rope_parameters": theirs}
        return fields | ({interleaved: cfg.rope.interleaved} if isinstance(interleaved, str) else {})

    return Part(read, write)


HEAD_WIDTH = Part(
    lambda theirs: {
        "head_width": getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    },
    lambda cfg: {"head_dim": cfg.head_width},
)
WHOLE_HEADS = Part(lambda theirs: {"head_width": theirs.hidden_size // theirs.num_attention_heads}, lambda cfg: {})
"""Heads that share out the model's width exactly."""

ALL_WINDOWED = Part(
    lambda theirs: {"window": theirs.sliding_window or None},
    lambda cfg: {"sliding_window": cfg.window, "use_sliding_window": cfg.window is not None},
)


def _read_layer_types(theirs: Any) -> Fields:
    windowed = tuple(i for i, kind in enumerate(theirs.layer_types) if kind == "sliding_attention")
    return {"window": theirs.sliding_window, "window_layers": windowed} if windowed else {}


def _write_layer_types(cfg: LanguageConfig) -> Fields:
    windows = [cfg.window_of(layer) for layer in range(cfg.layers)]
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    return {"use_sliding_window": any(windows), "sliding_window": cfg.window, "layer_types": kinds}


LAYER_TYPES = Part(_read_layer_types, _write_layer_types)


def _write_latent(cfg: LanguageConfig) -> Fields:
    if not isinstance(cfg.attention, LatentConfig):
        raise AttributeError("no latent attention")
    return {"qk_nope_head_dim": cfg.head_width - cfg.attention.rope_width, "num_key_value_heads": cfg.heads}


LATENT = Part(
    lambda theirs: {
        "head_width": theirs.qk_nope_head_dim + theirs.qk_rope_head_dim,
        "kv_heads": theirs.num_attention_heads,
    },
    _write_latent,
)


def _mixtures(cfg: LanguageConfig) -> list[int]:
    return [layer for layer in range(cfg.layers) if cfg.is_mixture(layer)]


def shared_experts(key: str) -> Part:
    """Shared experts, counted in widths of a routed one."""

    def read(theirs: Any) -> Fields:
        return {"moe.shared_width": (getattr(theirs, key) or 0) * theirs.moe_intermediate_size}

    return Part(read, lambda cfg: {key: cfg.shared_width() // cfg.moe.width})  # type: ignore[union-attr]


FIRST_DENSE = Part(
    lambda theirs: {"moe.first_dense": theirs.first_k_dense_replace},
    lambda cfg: {"first_k_dense_replace": next(iter(_mixtures(cfg)), cfg.layers)},
)

MLP_TYPES = Part(
    lambda theirs: {"moe.layers": tuple(i for i, kind in enumerate(theirs.mlp_layer_types) if kind == "sparse")},
    lambda cfg: {
        "mlp_layer_types": ["sparse" if cfg.is_mixture(layer) else "dense" for layer in range(cfg.layers)],
        "first_k_dense_replace": next(iter(_mixtures(cfg)), cfg.layers),
    },
)

SPARSE_STEP = Part(
    lambda theirs: {
        "moe.layers": tuple(
            layer
            for layer in range(theirs.num_hidden_layers)
            if layer not in theirs.mlp_only_layers and (layer + 1) % theirs.decoder_sparse_step == 0
        )
    },
    lambda cfg: {"mlp_only_layers": sorted({*range(cfg.layers)} - {*_mixtures(cfg)}), "decoder_sparse_step": 1},
)


def _read_interval(theirs: Any) -> Fields:
    last = theirs.moe_layer_end_index % theirs.num_hidden_layers  # -1 is the last layer
    layers = range(theirs.moe_layer_start_index, last + 1)
    return {"moe.layers": tuple(layer for layer in layers if (layer + 1) % theirs.moe_layer_interval == 0)}


def _write_interval(cfg: LanguageConfig) -> Fields:
    mixtures = _mixtures(cfg)
    first, last = (mixtures[0], mixtures[-1]) if mixtures else (cfg.layers, cfg.layers - 1)
    interval = mixtures[1] - first if len(mixtures) > 1 else 1
    return {"moe_layer_start_index": first, "moe_layer_end_index": last, "moe_layer_interval": interval}


INTERVAL = Part(_read_interval, _write_interval)


def _read_step(theirs: Any) -> Fields:
    layers = range(theirs.first_k_dense_replace, theirs.num_hidden_layers)
    return {"moe.layers": tuple(layer for layer in layers if layer % theirs.moe_layer_freq == 0)}


STEP_AFTER_DENSE = Part(_read_step, lambda cfg: FIRST_DENSE.write(cfg) | {"moe_layer_freq": 1})

QK_NORM = Part(
    lambda theirs: {"attention.qk_norm": "head" if theirs.use_qk_norm else None},
    lambda cfg: {"use_qk_norm": cfg.attention.qk_norm == "head"},  # type: ignore[union-attr]
)


def _read_v2_routing(theirs: Any) -> Fields:
    """DeepSeek-V2 chooses by softmax score and never normalises; DeepSeek-VL2 takes V3's way under V2's name."""
    method = theirs.topk_method or "greedy"
    if method not in ("greedy", "group_limited_greedy", "noaux_tc"):
        raise ValueError(f"key topk_method: {method!r} is not one this decoder knows")
    ours = {"moe.scoring": getattr(theirs, "scoring_func", "softmax"), "moe.balanced": method == "noaux_tc"}
    ours["moe.normalise"] = method == "noaux_tc" and bool(theirs.norm_topk_prob)
    if method == "greedy":
        return ours
    groups = {"moe.groups": theirs.n_group, "moe.groups_kept": theirs.topk_group}
    return ours | groups | {"moe.group_score": "top2" if method == "noaux_tc" else "max"}


def _write_v2_routing(cfg: LanguageConfig) -> Fields:
    moe = cfg.moe
    if moe is None:
        raise AttributeError("no mixture")
    method = "noaux_tc" if moe.balanced else "greedy" if moe.groups == 1 else "group_limited_greedy"
    fields: Fields = {"topk_method": method, "n_group": moe.groups, "topk_group": moe.groups_kept}
    return fields | {"scoring_func": moe.scoring, "norm_topk_prob": moe.normalise}


V2_ROUTING = Part(_read_v2_routing, _write_v2_routing)


def original_rope(interleaved: bool) -> Part:
    """As the authors' own DeepSeek-V2 reads `rope_scaling`: its defaults, and a temperature of its own each way."""

    plain = rope(interleaved=interleaved)

    def read(theirs: Any) -> Fields:
        given = theirs.rope_parameters
        if given["rope_type"] == "yarn":
            given = {"original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 0.0, **given}
            scores = temperature(given["factor"], given["mscale_all_dim"])
            given["attention_factor"] = temperature(given["factor"], given["mscale"]) / scores
        positions = theirs.max_position_embeddings
        return plain.read(SimpleNamespace(rope_parameters=given, max_position_embeddings=positions))

    return Part(read, plain.write)


def _read_original_routing(theirs: Any) -> Fields:
    """Gates of several experts sum to one whatever chose them; of one expert they never do."""
    method = theirs.topk_method or "greedy"
    if method not in ("greedy", "group_limited_greedy", "noaux_tc"):
        raise ValueError(f"key topk_method: {method!r} is not one this decoder knows")
    ours = {"moe.scoring": theirs.scoring_func, "moe.balanced": method == "noaux_tc"}
    ours["moe.normalise"] = bool(theirs.norm_topk_prob) and theirs.num_experts_per_tok > 1
    if method == "greedy":
        return ours
    groups = {"moe.groups": theirs.n_group or 1, "moe.groups_kept": theirs.topk_group or 1}
    return ours | groups | {"moe.group_score": "top2" if method == "noaux_tc" else "max"}


ORIGINAL_ROUTING = Part(_read_original_routing, _write_v2_routing)
"""The authors' own DeepSeek-V2, which DeepSeek-VL2 uses with any scoring and any way to choose.

Where experts are limited to groups by score + bias, their code gives those outside the value 0, so that one could still
be taken before an expert inside whose score + bias is negative. Here they are never taken (-inf): that is what the
limit is for (DeepSeek-V3, arXiv:2412.19437, section 2.1.2), and what DeepSeek-V3's own code and transformers do. With
one group, or no such bias, both are the same.
"""
