"""DeepSeek-VL2 folders of other sizes and kinds, against the steps written out; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_vl2 as vl2
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from PIL import Image
from published import left_padded
from safetensors.torch import load_file, save_file

import vlm
from vlm.cli import main
from vlm.errors import BadInput
from vlm.families.deepseek_vl2.config import ModelFields, read_configs
from vlm.language.checkpoints.families import original_v2
from vlm.language.checkpoints.folder import read_model
from vlm.weights.tensors import open_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vl2.write_folder(tmp_path / "vl2")
    return tmp_path / "vl2"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def plain_embeddings(
    state: dict[str, torch.Tensor], config: dict[str, Any], ids: list[int], pixels: torch.Tensor, grids: list[list[int]]
) -> torch.Tensor:
    """Input embeddings of one conversation, one visual token at a time."""
    seeing, joining = config["vision_config"], config["projector_config"]
    tower, projector = vl2.vision(seeing), vl2.projector(joining)
    for module, prefix in ((tower, "vision."), (projector, "projector.layers.")):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    grid = seeing["image_size"] // seeing["patch_size"]
    down = joining.get("projector_type", "downsample_mlp_gelu") == "downsample_mlp_gelu"
    factor = joining.get("downsample_ratio", 2) if down else 1
    side = -(-grid // factor)

    def squares(tile: torch.Tensor) -> torch.Tensor:
        """`[side, side, W]` of one tile."""
        patches = tower.forward_features(tile[None])[0].view(grid, grid, -1)
        full = torch.zeros(side * factor, side * factor, patches.shape[-1])
        full[:grid, :grid] = patches
        rows = [
            [full[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor] for x in range(side)]
            for y in range(side)
        ]
        return torch.stack(
            [torch.stack([projector(square.permute(2, 0, 1).flatten()) for square in row]) for row in rows]
        )

    newline, separator = state["image_newline"], state["view_seperator"]
    visual: list[torch.Tensor] = []
    at = 0
    for wide, high in grids:
        views = [squares(tile) for tile in pixels[at : at + 1 + wide * high]]
        at += 1 + wide * high
        first = [t for row in views[0] for t in (*row, newline)]
        last = []
        for y in range(high * side):
            for x in range(wide * side):
                last.append(views[1 + y // side * wide + x // side][y % side, x % side])
            last.append(newline)
        if config.get("global_view_pos") == "tail":
            first, last = last, first
        visual += [*first, separator, *last]
    table = state["language.model.embed_tokens.weight"]
    seen = iter(visual)
    rows = [next(seen) if token == vl2.CONTROL.index("<image>") else table[token] for token in ids]
    assert next(seen, None) is None
    return torch.stack(rows)


START = "language."
VARIANTS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "tail": {"global_view_pos": "tail"},
    "deep and wide": {"projector_config": {"depth": 4, "mlp_ratio": 2}},
    "depth of one": {"projector_config": {"depth": 1}},
    "factor of three": {"projector_config": {"downsample_ratio": 3}},
    "factor of one": {"projector_config": {"downsample_ratio": 1}},
    "linear": {"projector_config": {"projector_type": "linear", "downsample_ratio": 1}},
    "mlp": {"projector_config": {"projector_type": "mlp_gelu", "downsample_ratio": 1, "depth": 3}},
    "patch that divides": {"vision_config": {"patch_size": 14}},
    "latent, sigmoid": {
        "language_config": {"use_mla": True, "q_lora_rank": None, "kv_lora_rank": 12, "qk_rope_head_dim": 4,
                            "qk_nope_head_dim": 6, "v_head_dim": 10},
    },
    "dense": {"language_config": {"n_routed_experts": None, "num_key_value_heads": 4}},
}  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_the_steps_written_out(tmp_path: Path, name: str) -> None:
    state = vl2.write_folder(tmp_path, **VARIANTS[name])
    config = json.loads((tmp_path / "config.json").read_text())
    model = vlm.load(tmp_path)
    messages = ask("one <image> and\n<image> another")
    ids, pixels, grids = model.processor(messages, [picture(150, 50), picture(40, 90, seed=1)])
    assert grids.tolist() == [[3, 1], [1, 2]]
    assert pixels.shape == (7, 3, 56, 56)
    expected = plain_embeddings(state, config, ids[0].tolist(), pixels, grids.tolist())
    assert (model.model.embed(ids, model.model.visual(pixels, grids))[0] - expected).abs().max() < 1e-4
    words = {n.removeprefix(START): t for n, t in open_tensors(tmp_path).items() if n.startswith(START)}
    saying = config["language_config"]
    language = read_model(saying, original_v2(saying), words, tmp_path)
    logits = language.logits(language.hidden(expected[None]))
    assert (model.logits(ids, pixels, grids) - logits).abs().max() < 3e-4


def test_shards_are_one_checkpoint(folder: Path) -> None:
    whole = vlm.load(folder)
    state = load_file(folder / "model.safetensors")
    plan = split_torch_state_dict_into_shards(state, max_shard_size=20_000)
    assert plan.is_sharded
    for file, names in plan.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": plan.tensor_to_filename}))
    inputs = whole.processor(ask("<image>?"), [picture(70, 60)])
    assert torch.equal(vlm.load(folder).logits(*inputs), whole.logits(*inputs))
    assert vlm.load(folder).weights_hash() == whole.weights_hash()


def test_what_a_config_leaves_out() -> None:
    fields = ModelFields(language_config={})
    tower = fields.vision_config.tower()
    assert (tower.image_size, tower.patch, tower.width, tower.layers, tower.heads) == (384, 16, 1024, 24, 16)
    assert tower.mlp_width == 4096
    projector = fields.projector_config
    assert (projector.input_dim, projector.n_embed) == (1152, 2048)
    assert projector.projector().model_dump() == {"kind": "downsample_mlp", "factor": 2, "depth": 2, "ratio": 1}
    published = ModelFields(vision_config={"width": 1152, "mlp_ratio": 3.7362, "patch_size": 14}, language_config={})
    assert published.vision_config.tower().mlp_width == 4304


def test_without_a_processor_config_the_models_own_sizes_are_used(folder: Path) -> None:
    expected = vlm.load(folder).processor(ask("<image>"), [picture(100, 100)])
    (folder / "processor_config.json").unlink()
    ids, pixels, grids = vlm.load(folder).processor(ask("<image>"), [picture(100, 100)])
    assert torch.equal(ids, expected.input_ids)
    assert torch.equal(pixels, expected.pixels)
    assert torch.equal(grids, expected.grids)


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_the_processors_keys_may_stand_deeper_or_in_the_other_file(folder: Path, name: str) -> None:
    whole = json.loads((folder / "processor_config.json").read_text())
    sizes = whole["candidate_resolutions"]
    whole["image_mean"] = [0.1, 0.2, 0.3]
    (folder / "processor_config.json").unlink()
    nested = {"image_processor": whole, "candidate_resolutions": sizes}
    (folder / name).write_text(json.dumps(nested if name == "processor_config.json" else whole))
    assert read_configs(folder)[1].image_mean == (0.1, 0.2, 0.3)


def test_half_precision(folder: Path) -> None:
    model, half = vlm.load(folder), vlm.load(folder, dtype=torch.bfloat16)
    assert half.model.tower.vit.norm.weight.dtype == torch.bfloat16
    assert half.model.language.layers[1].ffn.router.bias_E.dtype == torch.float32
    inputs = model.processor(ask("<image>"), [picture(100, 100)])
    logits = half.logits(*inputs)
    assert logits.dtype == torch.float32
    agree = torch.nn.functional.cosine_similarity(logits.flatten(), model.logits(*inputs).flatten(), dim=0)
    assert agree > 0.95


def test_a_batch_says_what_each_would_alone(folder: Path) -> None:
    model = vlm.load(folder)
    pictures = [picture(150, 50), picture(60, 60, seed=2), picture(50, 110, seed=3)]
    questions = ["What is in the picture?", "Describe", "a cup and a box?"]
    alone = [model.answer([p], [q], max_tokens=6)[0] for p, q in zip(pictures, questions, strict=True)]
    assert model.answer(pictures, questions, max_tokens=6) == alone
    assert len(set(alone)) > 1
    rows = [model.processor(ask(f"<image>{q}"), [p]) for p, q in zip(pictures, questions, strict=True)]
    rows.append(model.processor(ask("no picture")))
    logits = model.logits(*left_padded(rows, model.processor.pad_token))
    for row, own in zip(logits, rows, strict=True):
        assert (row[-own.input_ids.shape[1] :] - model.logits(*own)[0]).abs().max() < 1e-4


def test_greedy_tokens_are_those_without_a_cache(folder: Path) -> None:
    model = vlm.load(folder)
    ids, pixels, grids = model.processor(ask("<image>"), [picture(150, 50)])
    said = model.generate(ids, pixels, grids, max_tokens=8)[0]
    full = ids
    for _ in said:
        full = torch.cat([full, model.logits(full, pixels, grids)[:, -1:].argmax(-1)], dim=1)
    assert full[0, ids.shape[1] :].tolist() == said
    model.processor.stop_tokens = frozenset({said[3]})
    assert model.generate(ids, pixels, grids, max_tokens=8) == [said[: said.index(said[3])]]


def test_captions_of_pictures_and_clips(folder: Path) -> None:
    model = vlm.load(folder)
    assert model.name == "vl2"
    clip = vlm.assets.root() / "data" / "samples" / "city_at_night.mp4"
    assert len(model.caption([picture(50, 50), clip], max_tokens=3)) == 2
    with pytest.raises(BadInput, match="model vl2 is a deepseek_vl_v2 model: it has no space"):
        model.embed_texts(["a"])
    with pytest.raises(BadInput, match="question 1 is empty"):
        model.answer([picture(9, 9)], [" "])


def test_a_bound_on_the_tiles(folder: Path) -> None:
    processor = vlm.load(folder).processor
    assert processor.grid((150, 150)) == (2, 2)
    assert processor.grid((150, 150), most_tiles=3) == (1, 1)
    assert processor.grid((150, 60), most_tiles=3) == (3, 1)
    processor.most_tiles = 2
    inputs = processor(ask("<image>"), [picture(150, 150)])
    slots = int((inputs.input_ids == processor.image_token).sum())
    assert slots == processor.visual_tokens(processor.grid((150, 150), most_tiles=2))


def test_the_command_line_takes_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(60, 40).save(folder / "picture.png")
    for command in (["caption", str(folder / "picture.png")], ["ask", str(folder / "picture.png"), "What?"]):
        assert main([*command, "--model", str(folder), "--json"]) == 0
        assert "results" in json.loads(capsys.readouterr().out)
    assert main(["embed", str(folder / "picture.png"), "--model", str(folder)]) == 2
    assert "has no space that pictures and texts share" in capsys.readouterr().err
