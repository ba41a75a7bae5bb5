"""Real checkpoints give the reference's logits."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from vlm.errors import BadInput
from vlm.language.checkpoints.llama import GGUF_NAMES, read_gguf
from vlm.language.decoder import LanguageModel
from vlm.models.assemble import load_language
from vlm.models.assembled import Assembled
from vlm.models.parts import pull
from vlm.weights.fetching import fetch

HF_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def write_gguf(path: Path, model: LlamaForCausalLM, architecture: str = "llama", extra: str | None = None) -> Path:
    """The model as llama.cpp's converter writes it: query and key rows in neighbouring pairs."""
    cfg, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_uint32("llama.block_count", cfg.num_hidden_layers)
    writer.add_uint32("llama.context_length", cfg.max_position_embeddings)
    writer.add_uint32("llama.embedding_length", cfg.hidden_size)
    writer.add_uint32("llama.feed_forward_length", cfg.intermediate_size)
    writer.add_uint32("llama.attention.head_count", cfg.num_attention_heads)
    writer.add_uint32("llama.attention.head_count_kv", cfg.num_key_value_heads)
    writer.add_uint32("llama.rope.dimension_count", cfg.head_dim)
    writer.add_float32("llama.rope.freq_base", 5000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", cfg.rms_norm_eps)
    for pattern in GGUF_NAMES:
        if pattern == "output.weight" and cfg.tie_word_embeddings:
            continue
        for layer in range(cfg.num_hidden_layers) if "*" in pattern else [0]:
            kind = HF_NAMES[pattern.split(".")[-2]]
            theirs = f"model.layers.{layer}.{kind}.weight" if "*" in pattern else f"{kind}.weight"
            weight = state[theirs]
            if kind.endswith(("q_proj", "k_proj")):
                weight = weight.view(-1, 2, cfg.head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
            writer.add_tensor(pattern.replace("*", str(layer)), weight.contiguous().numpy())
    if extra is not None:
        writer.add_tensor(extra, torch.zeros(2).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama(tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    cfg = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(cfg).eval()


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_a_random_llama_gives_transformers_logits(tmp_path: Path, tied: bool) -> None:
    theirs = llama(tied)
    cfg, state = read_gguf(write_gguf(tmp_path / "a.gguf", theirs))
    assert cfg.tied_embeddings == tied
    ours = LanguageModel(cfg).eval()
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert unexpected == []
    assert missing == (["lm_head.weight"] if tied else [])
    tokens = torch.randint(60, (2, 10))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)


def test_files_that_are_not_llama_are_refused(tmp_path: Path) -> None:
    good = write_gguf(tmp_path / "good.gguf", llama()).read_bytes()
    (tmp_path / "text.gguf").write_text("hello, this is no model file at all")
    (tmp_path / "cut.gguf").write_bytes(good[: len(good) // 2])
    (tmp_path / "header.gguf").write_bytes(good[:40])
    (tmp_path / "empty.gguf").write_bytes(b"")
    write_gguf(tmp_path / "other.gguf", llama(), architecture="gpt2")
    write_gguf(tmp_path / "extra.gguf", llama(), extra="blk.0.attn_q.bias")
    expected = {
        "text": "not a GGUF file", "cut": "not a GGUF file", "header": "not a GGUF file", "empty": "not a GGUF file",
        "other": "expected a GGUF file of architecture llama, got 'gpt2'",
        "extra": "unknown tensor 'blk.0.attn_q.bias'",
    }  # fmt: skip
    for name, words in expected.items():
        with pytest.raises(BadInput) as caught:
            read_gguf(tmp_path / f"{name}.gguf")
        assert words in str(caught.value), name
        assert f"{name}.gguf" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.weights
@torch.no_grad()
def test_smollm2_gives_transformers_logits_dense_and_upcycled(nano: Assembled) -> None:
    file = fetch("nano/language", nano.card.parts["language"]).files["model.gguf"]
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    folder = pull(nano.card)["language"]
    dense = load_language(nano.card.model.language.model_copy(update={"moe": None}), folder).eval()
    tokens = torch.tensor([nano.tokenizer.encode("The capital of France is Paris. A dog runs through the snow, and")])
    expected = theirs(tokens).logits
    ours = dense(tokens)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)

    language = nano.model.language
    assert len(language.routers()) > 0
    torch.testing.assert_close(language(tokens), ours, rtol=0, atol=1e-5)
    down = language.layers[language.cfg.moe.first_dense].ffn.routed.down_EDF
    down.normal_(std=0.02)
    try:
        assert (language(tokens) - ours).abs().max() > 1e-3
    finally:
        down.zero_()


def test_a_card_of_another_architecture_names_what_differs(tmp_path: Path) -> None:
    import tiny

    tiny.write_card(tmp_path)
    other = tiny.LANGUAGE.model_copy(update={"rope_theta": 5.0, "layers": 3})
    with pytest.raises(BadInput, match=r"differs from the file's in layers, rope_theta"):
        load_language(other, tmp_path / "language")
