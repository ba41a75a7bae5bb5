"""Folders as they come: sharded, in other precisions, 8-bit, with a tensor too many or too few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from published import gap, theirs, write
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import vlm.language
from vlm.errors import BadInput
from vlm.weights.tensors import dequantise

MIXTURE = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_routed_experts": 4,
    "n_group": 1, "topk_group": 1, "q_lora_rank": 12,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(theirs("deepseek_v3", **MIXTURE), tmp_path / "published")


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Set (or with `None` drop) tensors of a folder; `__` in a name stands for a dot."""
    state = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        state.pop(name.replace("__", "."), None)
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    save_file(state, folder / "model.safetensors")


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        vlm.language.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@torch.no_grad()
def test_shards_are_read_and_written(folder: Path, tmp_path: Path) -> None:
    tokens = torch.arange(12)[None]
    model = vlm.language.load(folder)
    expected = model(tokens)
    vlm.language.save(model, tmp_path / "sharded", format="deepseek_v3", shard_size=20_000)
    assert len([*(tmp_path / "sharded").glob("model-*.safetensors")]) > 3
    assert torch.equal(vlm.language.load(tmp_path / "sharded")(tokens), expected)

    (tmp_path / "sharded" / "tokenizer.json").write_text("{}")
    vlm.language.save(model, tmp_path / "sharded", format="deepseek_v3")  # the shards give way, other files stay
    names = sorted(path.name for path in (tmp_path / "sharded").iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert torch.equal(vlm.language.load(tmp_path / "sharded")(tokens), expected)


@torch.no_grad()
def test_a_folder_can_be_written_over_by_the_model_that_is_mapped_from_it(folder: Path) -> None:
    model = vlm.language.load(folder)
    expected = model(torch.arange(12)[None])
    vlm.language.save(model, folder, format="deepseek_v3")
    assert torch.equal(model(torch.arange(12)[None]), expected)
    assert torch.equal(vlm.language.load(folder)(torch.arange(12)[None]), expected)


def test_a_missing_shard_and_a_damaged_file_are_named(folder: Path, tmp_path: Path) -> None:
    vlm.language.save(vlm.language.load(folder), tmp_path / "a", format="deepseek_v3", shard_size=20_000)
    gone = sorted((tmp_path / "a").glob("model-*.safetensors"))[1]
    content = gone.read_bytes()
    gone.unlink()
    assert f"{gone.name}: no such file" in refused(tmp_path / "a")
    gone.write_bytes(content[:100])
    assert f"{gone.name}: not a safetensors file" in refused(tmp_path / "a")
    index = tmp_path / "a" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../b.safetensors"}}))
    assert "expected names of files beside it" in refused(tmp_path / "a")
    index.write_text("[]")
    assert "not an index" in refused(tmp_path / "a")


def test_missing_unknown_and_misshaped_tensors_are_named_with_their_shapes(folder: Path) -> None:
    change(
        folder,
        model__layers__1__mlp__experts__3__up_proj__weight=None,
        model__layers__0__self_attn__q_proj__bias=torch.zeros(7),
        model__norm__weight=torch.zeros(9),
    )
    message = refused(folder)
    assert "1 missing: model.layers.1.mlp.experts.3.up_proj.weight [16, 32]" in message
    assert "1 unknown: model.layers.0.self_attn.q_proj.bias [7]" in message
    assert "1 of another shape: model.norm.weight expected [32], got [9]" in message


def test_layers_of_multi_token_prediction_are_left_out(folder: Path) -> None:
    change(folder, model__layers__3__eh_proj__weight=torch.zeros(32, 64))
    vlm.language.load(folder)


@torch.no_grad()
def test_precision_is_the_one_asked_for(folder: Path, tmp_path: Path) -> None:
    model = vlm.language.load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    half = vlm.language.load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.layers[1].ffn.router.bias_E.dtype == torch.float32
    vlm.language.save(half, tmp_path / "half", format="deepseek_v3")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert stored["model.norm.weight"].dtype == torch.bfloat16
    again = vlm.language.load(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(again.norm.weight, half.norm.weight.float())


def test_a_loaded_model_can_be_trained_and_leaves_the_file_alone(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = vlm.language.load(folder).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.arange(12)[None]).square().mean().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if ".routed." not in name)
    optimizer.step()
    for router in model.routers():
        router.balance()
    assert (folder / "model.safetensors").read_bytes() == before


def quantise(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As DeepSeek-V3's checkpoints are: one scale a block, found a block at a time."""
    rows, columns = (-(-n // block) for n in weight.shape)
    scale, small = torch.empty(rows, columns), torch.empty_like(weight)
    for r in range(rows):
        for c in range(columns):
            place = (slice(r * block, (r + 1) * block), slice(c * block, (c + 1) * block))
            scale[r, c] = weight[place].abs().max() / 448
            small[place] = weight[place] / scale[r, c]
    return small.to(torch.float8_e4m3fn), scale


@torch.no_grad()
@pytest.mark.parametrize("block", [8, 128])
def test_8_bit_blocks_are_expanded(folder: Path, block: int) -> None:
    state = load_file(folder / "model.safetensors")
    exact: dict[str, torch.Tensor] = {}
    for name in [n for n in state if n.endswith("proj.weight") or "kv_a_proj" in n]:
        small, scale = quantise(state[name], block)
        state |= {name: small, f"{name}_scale_inv": scale}
        for r, c in torch.cartesian_prod(*(torch.arange(n) for n in scale.shape)).tolist():
            place = (slice(r * block, (r + 1) * block), slice(c * block, (c + 1) * block))
            exact.setdefault(name, torch.empty(small.shape))[place] = small[place].float() * scale[r, c]
        assert torch.equal(dequantise(small, scale, (block, block)), exact[name])
    save_file(
        {name: t for name, t in (state | exact).items() if "_scale_inv" not in name}, folder / "model.safetensors"
    )
    expected = vlm.language.load(folder)
    save_file(state, folder / "model.safetensors")
    fields = json.loads((folder / "config.json").read_text())
    fields["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps(fields))
    model = vlm.language.load(folder)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in expected.state_dict().items())
    name = "model.layers.1.mlp.experts.2.down_proj.weight"

    change(folder, **{f"{name}_scale_inv".replace(".", "__"): torch.ones(9, 9)})
    assert "expected scales of shape" in refused(folder)
    change(folder, **{f"{name}_scale_inv".replace(".", "__"): None})
    assert f"8-bit tensor {name} comes without {name}_scale_inv" in refused(folder)


def test_configs_the_decoder_cannot_follow_are_refused(tmp_path: Path) -> None:
    folder = write(theirs("llama"), tmp_path / "published")
    good = json.loads((folder / "config.json").read_text())

    def tried(**fields: Any) -> str:
        (folder / "config.json").write_text(json.dumps(good | fields))
        return refused(folder)

    assert "unknown language model family 'lama'; did you mean 'llama' or" in tried(model_type="lama")
    assert "key model_type: expected the name of a family, got None" in tried(model_type=None)
    assert "key hidden_act: expected silu, got 'gelu'" in tried(hidden_act="gelu")
    assert "rope_type 'proportional'" in tried(rope_parameters={"rope_type": "proportional", "rope_theta": 1e4})
    assert "mscale_all_dim is known with rope_type yarn, got 'linear'" in tried(
        rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0, "mscale_all_dim": 1.0}
    )
    assert "not a config of llama" in tried(num_key_value_heads="two")
    assert "heads 4 is not a multiple of kv_heads 3" in tried(num_key_value_heads=3)
    (folder / "config.json").write_text("{")
    assert "not a JSON file" in refused(folder)
    (folder / "config.json").write_text("[]")
    assert "expected a JSON object, got list" in refused(folder)
    (folder / "config.json").unlink()
    assert "config.json: no such file" in refused(folder)


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
def test_a_config_of_no_experts_is_a_dense_model(family: str, tmp_path: Path) -> None:
    expected = theirs(family, num_experts=0, head_dim=8)
    model = vlm.language.load(write(expected, tmp_path / "published"))
    tokens = torch.arange(12)[None]
    assert model.cfg.moe is None
    assert gap(model(tokens), expected(tokens).logits) < 1e-4
    vlm.language.save(model, tmp_path / "again", format=family)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    assert gap(again.eval()(tokens).logits, expected(tokens).logits) < 1e-4
    assert vlm.language.load(tmp_path / "again").cfg == model.cfg
    with pytest.raises(BadInput, match=r"format mixtral|not of a kind that format mixtral"):
        vlm.language.save(model, tmp_path / "other", format="mixtral")


def test_more_experts_than_the_kept_groups_have_are_refused(folder: Path) -> None:
    """Where transformers takes the rest from groups that were not kept."""
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 3}))
    assert refused(folder).endswith("config.json: key moe: top_k 3 is more than the 2 experts of 1 groups")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no safetensors files in it" in refused(folder)


def test_a_format_that_cannot_hold_a_model_says_what_it_would_lose(tmp_path: Path) -> None:
    mixture = tiny.language()
    for name, words in [
        ("deepseek_v3", "not of a kind that format deepseek_v3 can hold"),
        ("mixtral", "moe.scoring sigmoid (it would be softmax)"),
        ("glm4_moe", "mixture layers [1, 3] (it would be [1, 2, 3])"),
        ("llama", "moe"),
        ("lama", "unknown language model family 'lama'; did you mean 'llama' or"),
    ]:
        with pytest.raises(BadInput) as caught:
            vlm.language.save(mixture, tmp_path / "a", format=name)
        assert words in str(caught.value), name
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


@torch.no_grad()
def test_gguf_files_are_loaded(tmp_path: Path) -> None:
    from test_llama import llama, write_gguf

    model = llama(tied=True)
    tokens = torch.randint(60, (2, 10))
    assert gap(vlm.language.load(write_gguf(tmp_path / "a.gguf", model))(tokens), model(tokens).logits) < 1e-4
