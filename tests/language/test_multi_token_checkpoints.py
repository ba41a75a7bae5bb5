"""Multi-token layers of published checkpoints: loaded when asked for, equal to transformers', written as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published import gap, theirs, write
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

import vlm.language
from vlm.errors import BadInput
from vlm.language.decoder import LanguageModel

N, LAYERS = 2, 3
MLA = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "q_lora_rank": 12,
}  # fmt: skip
MOE = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_group": 4, "topk_group": 2,
    "first_k_dense_replace": 1, "num_nextn_predict_layers": N,
}  # fmt: skip
CASES: list[tuple[str, dict[str, Any]]] = [
    ("deepseek_v3", MLA | MOE),
    ("deepseek_v3", MLA | MOE | {"tie_word_embeddings": True, "first_k_dense_replace": 3}),
    ("glm4_moe", MOE | {"head_dim": 16, "use_qk_norm": True}),
]


def publish(model: PreTrainedModel, heads: MtpModel, folder: Path) -> Path:
    """A folder as DeepSeek publishes them: heads are further layers, embedding and output layer repeated in each."""
    write(model, folder)
    state = load_file(folder / "model.safetensors")
    for name, tensor in heads.state_dict().items():
        if not name.startswith("layers."):
            continue
        _, number, rest = name.split(".", 2)
        prefix = f"model.layers.{LAYERS + int(number)}."
        rest = rest.removeprefix("mtp_block.").replace("post_norm.", "shared_head.norm.")
        parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(rest.split(".")[-1])
        if ".experts." not in rest or parts is None:
            state[prefix + rest] = tensor.clone()
            continue
        for expert, whole in enumerate(tensor):
            for part, rows in zip(parts, whole.chunk(len(parts)), strict=True):
                state[f"{prefix}mlp.experts.{expert}.{part}.weight"] = rows.clone()
    for layer in range(LAYERS, LAYERS + N):
        state[f"model.layers.{layer}.embed_tokens.weight"] = state["model.embed_tokens.weight"].clone()
        head = state.get("lm_head.weight", state["model.embed_tokens.weight"])
        state[f"model.layers.{layer}.shared_head.head.weight"] = head.clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{len(case[1])}")
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, MtpModel, Path]:
    family, options = request.param
    model = theirs(family, **options)
    torch.manual_seed(1)
    heads = MtpModel(model, N).eval()
    with torch.no_grad():
        for name, tensor in [*heads.layers.named_parameters(), *heads.layers.named_buffers()]:
            if "norm" in name:
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 or "e_score_correction_bias" in name:
                tensor.normal_(std=0.2)
            else:
                tensor.normal_(std=1.5 * tensor.shape[-1] ** -0.5)
    return model, heads, publish(model, heads, tmp_path_factory.mktemp(family))


@torch.no_grad()
def test_logits_of_every_depth_are_transformers(published: tuple[PreTrainedModel, MtpModel, Path]) -> None:
    model, heads, folder = published
    tokens = torch.randint(60, (2, 15), generator=torch.Generator().manual_seed(3))
    ours = vlm.language.load(folder, multi_token=True)
    hidden = ours.hidden(ours.embedding(tokens))
    found = ours.multi_token_logits(hidden, tokens)
    assert len(found) == N
    states = model.model(tokens).last_hidden_state
    cache = MtpCache(config=model.config.get_mtp_config())
    for depth, logits in enumerate(found, start=1):
        # Theirs is handed the tokens that have one; positions are one on, which rotary positions do not notice.
        states = heads.forward_layer(
            depth - 1, states[:, : 15 - depth], torch.arange(depth, 15)[None], cache, input_ids=tokens[:, depth:]
        )
        assert gap(logits[:, : 15 - depth], heads._project_to_logits(states)) < 1e-4


@torch.no_grad()
def test_they_are_left_out_unless_asked_for(published: tuple[PreTrainedModel, MtpModel, Path]) -> None:
    model, _, folder = published
    tokens = torch.arange(10)[None]
    plain, asked = vlm.language.load(folder), vlm.language.load(folder, multi_token=True)
    assert (plain.cfg.multi_token, plain.multi_token, asked.cfg.multi_token) == (0, None, N)
    assert gap(plain(tokens), model(tokens).logits) < 1e-4
    assert torch.equal(plain(tokens), asked(tokens))


def test_what_is_saved_is_what_was_published(published: tuple[PreTrainedModel, MtpModel, Path], tmp_path: Path) -> None:
    model, _, folder = published
    vlm.language.save(vlm.language.load(folder, multi_token=True), tmp_path / "a", format=model.config.model_type)
    expected, written = load_file(folder / "model.safetensors"), load_file(tmp_path / "a" / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())
    assert json.loads((tmp_path / "a" / "config.json").read_text())["num_nextn_predict_layers"] == N
    assert vlm.language.load(tmp_path / "a", multi_token=True).cfg.multi_token == N

    vlm.language.save(vlm.language.load(folder), tmp_path / "b", format=model.config.model_type)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["num_nextn_predict_layers"] == 0
    assert not any(f"layers.{LAYERS}." in name for name in load_file(tmp_path / "b" / "model.safetensors"))
    with pytest.raises(BadInput, match="key num_nextn_predict_layers: the model has no such layers"):
        vlm.language.load(tmp_path / "b", multi_token=True)


def test_copies_may_be_missing_but_not_differ(
    published: tuple[PreTrainedModel, MtpModel, Path], tmp_path: Path
) -> None:
    _, _, folder = published
    state = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    copy = f"model.layers.{LAYERS + 1}.shared_head.head.weight"
    save_file({name: t for name, t in state.items() if name != copy}, tmp_path / "model.safetensors")
    vlm.language.load(tmp_path, multi_token=True)
    save_file(state | {copy: state[copy] + 1}, tmp_path / "model.safetensors")
    vlm.language.load(tmp_path)
    with pytest.raises(BadInput, match=f"tensor {copy} is not the .* it should repeat"):
        vlm.language.load(tmp_path, multi_token=True)
    gone = f"model.layers.{LAYERS}.eh_proj.weight"
    save_file({name: t for name, t in state.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=rf"1 missing: {gone} \[32, 64\]"):
        vlm.language.load(tmp_path, multi_token=True)


def test_families_without_them_say_so(tmp_path: Path) -> None:
    folder = write(theirs("llama"), tmp_path / "llama")
    with pytest.raises(BadInput, match="the model has no such layers"):
        vlm.language.load(folder, multi_token=True)
    model = vlm.language.load(folder)
    model = LanguageModel(model.cfg.model_copy(update={"multi_token": 1}))
    with pytest.raises(BadInput, match=r"format llama cannot hold this model's multi_token 1 \(it would be 0\)"):
        vlm.language.save(model, tmp_path / "a", format="llama")
