from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from timm.data import create_transform
from timm.models.vision_transformer import VisionTransformer

from vlm.errors import BadInput
from vlm.models.assembled import Assembled
from vlm.vision.checkpoints import read_dinov2_onnx
from vlm.vision.tower import TowerConfig
from vlm.vision.transforms import to_pixels
from vlm.weights.fetching import fetch


def photograph(width: int, height: int) -> Image.Image:
    """Smooth shapes and some noise."""
    rng = np.random.default_rng(width)
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    smooth = np.stack([np.sin(x * y), np.cos(x + y), np.sin(2 * x - y)], axis=-1) * 100 + 128
    return Image.fromarray((smooth + rng.normal(0, 15, smooth.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(300, 200), (97, 211), (64, 64), (20, 31)])
def test_preprocessing_equals_timms_own(size: tuple[int, int], interpolation: str) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = create_transform(
        input_size=64, interpolation=interpolation, mean=mean, std=std, crop_pct=1.0, crop_mode="squash"
    )
    image = photograph(*size)
    difference = (to_pixels([image], 64, mean, std, interpolation)[0] - theirs(image)).abs()
    assert difference.max() < 1e-5


def test_preprocessing_takes_any_mode() -> None:
    pictures = [Image.new("L", (9, 5), 255), Image.new("RGBA", (3, 8), (255, 255, 255, 255)), Image.new("RGB", (1, 1))]
    pixels = to_pixels(pictures, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    assert pixels.shape == (3, 3, 16, 16)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels.amin(dim=(1, 2, 3)), torch.tensor([1.0, 1.0, -1.0]))


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2"])
def test_patch_tokens_come_without_cls_and_registers(name: str) -> None:
    patch, width = (16, 64) if name == "test_vit" else (14, 384)
    cfg = tiny.TOWER.model_copy(update={"name": name, "patch": patch, "width": width, "image_size": 2 * patch})
    tower = cfg.build().eval()
    pixels = torch.randn(2, 3, 2 * patch, 2 * patch)
    tokens, pooled = tower(pixels)
    everything = tower.vit.forward_features(pixels)
    assert tokens.shape == (2, cfg.grid**2, width) == (2, 4, width)
    assert torch.equal(tokens, everything[:, -4:])
    assert torch.equal(pooled, everything[:, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 65}, "expected width 65, patch 16; timm has width 64, patch 16"),
        ({"patch": 8}, "expected width 64, patch 8; timm has width 64, patch 16"),
        ({"name": "vit_samll"}, "timm has no model of this name"),
        ({"activation": "quick_gelu"}, "expected the activation quick_gelu, timm's model has gelu"),
    ],
)
def test_a_card_that_is_not_timms_model(change: dict[str, object], words: str) -> None:
    cfg = TowerConfig.model_validate({**tiny.TOWER.model_dump(), **change})
    with pytest.raises(BadInput, match=words):
        cfg.build()


def test_weights_with_a_missing_key_are_refused() -> None:
    tower = tiny.TOWER.build()
    state = dict(tower.vit.state_dict())
    state.pop("blocks.1.attn.proj.bias")
    with pytest.raises(BadInput, match=r"1 missing: blocks\.1\.attn\.proj\.bias"):
        tower.load_published(state)


def test_the_position_table_is_resampled_to_the_image_size() -> None:
    small, large = tiny.TOWER.build(), tiny.TOWER.model_copy(update={"image_size": 96}).build()
    large.load_published(small.vit.state_dict())
    assert large.vit.pos_embed.shape == (1, 37, 64)
    for one, other in zip(small.vit.blocks.parameters(), large.vit.blocks.parameters(), strict=True):
        assert torch.equal(one, other)


# An ONNX export in small: two layers of width 8, 3 x 3 patches of 2 pixels.
LINEARS = {
    "attention.attention.query": "q", "attention.attention.key": "k", "attention.attention.value": "v",
    "attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip


def tiny_vit() -> VisionTransformer:
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=6, patch_size=2, embed_dim=8, depth=2, num_heads=2, init_values=0.5, num_classes=0, mlp_ratio=2
    )
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter)
    return vit


def write_onnx(path: Path, vit: VisionTransformer) -> onnx.ModelProto:
    """The ViT's weights laid out as the exporter of a transformers DINOv2 does."""
    state = vit.state_dict()
    tensors, nodes = {}, []
    tensors["backbone.embeddings.cls_token"] = state["cls_token"]
    for kind in ("weight", "bias"):
        tensors[f"backbone.embeddings.patch_embeddings.projection.{kind}"] = state[f"patch_embed.proj.{kind}"]
        tensors[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
    tensors["pos_of_cls"], tensors["pos_of_patches"] = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    nodes += [helper.make_node("Concat", ["pos_of_cls", "pos_of_patches"], ["positions"], name="/Concat", axis=1)]
    for layer in range(2):
        ours, theirs = f"blocks.{layer}", f"backbone.encoder.layer.{layer}"
        for number in (1, 2):
            tensors[f"{theirs}.layer_scale{number}.lambda1"] = state[f"{ours}.ls{number}.gamma"]
            for kind in ("weight", "bias"):
                tensors[f"{theirs}.norm{number}.{kind}"] = state[f"{ours}.norm{number}.{kind}"]
        parts = {"qkv"[i]: {k: state[f"{ours}.attn.qkv.{k}"].chunk(3)[i] for k in ("weight", "bias")} for i in range(3)}
        for name, short in LINEARS.items():
            of = parts.get(short) or {kind: state[f"{ours}.{short}.{kind}"] for kind in ("weight", "bias")}
            anonymous = f"onnx::MatMul_{len(tensors)}"
            tensors[anonymous] = of["weight"].T
            tensors[f"{theirs}.{name}.bias"] = of["bias"]
            node = f"/backbone/encoder/layer.{layer}/{name.replace('.', '/')}/MatMul"
            nodes.append(helper.make_node("MatMul", ["x", anonymous], [f"y{len(tensors)}"], name=node))
    initialisers = [numpy_helper.from_array(t.contiguous().numpy(), name) for name, t in tensors.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [value], initialisers))
    onnx.save(model, path)
    return model


def test_an_export_is_read_under_timms_names(tmp_path: Path) -> None:
    vit = tiny_vit()
    write_onnx(tmp_path / "a.onnx", vit)
    state = read_dinov2_onnx(tmp_path / "a.onnx")
    assert state.keys() == vit.state_dict().keys()
    for name, tensor in vit.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, msg=name)


def test_damaged_exports_are_refused(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "good.onnx", tiny_vit())
    whole = (tmp_path / "good.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("this is no ONNX file")
    (tmp_path / "empty.onnx").write_bytes(b"")
    initialisers = model.graph.initializer
    for tensor in initialisers:
        if tensor.name == "backbone.layernorm.bias":
            tensor.dims[0] = 99
    onnx.save(model, tmp_path / "shape.onnx")
    for number, tensor in enumerate(initialisers):
        if tensor.name == "backbone.layernorm.bias":
            del initialisers[number]
            break
    onnx.save(model, tmp_path / "missing.onnx")
    for name in ("cut", "text", "empty", "shape", "missing", "absent"):
        with pytest.raises(BadInput) as caught:
            read_dinov2_onnx(tmp_path / f"{name}.onnx")
        assert f"{name}.onnx" in str(caught.value)
    with pytest.raises(BadInput, match=r"backbone\.layernorm\.bias|layernorm\.bias"):
        read_dinov2_onnx(tmp_path / "missing.onnx")


def as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names of a DINOv2 as those of transformers 5."""
    names = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm",
        "attn.proj": "attention.o_proj", "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1",
    }  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        prefix, rest = "", name
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            prefix = f"encoder.layer.{layer}."
        stem, _, kind = rest.rpartition(".")
        if stem == "attn.qkv":
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{prefix}attention.{part}_proj.{kind}"] = chunk
        elif rest in names:
            renamed[prefix + names[rest]] = tensor
        else:
            renamed[f"{prefix}{names.get(stem, stem)}.{kind}"] = tensor
    return renamed


@pytest.mark.weights
@torch.no_grad()
def test_dinov2_gives_transformers_features(nano: Assembled) -> None:
    """At 518 pixels, where the position table fits as it is."""
    from transformers import Dinov2Config, Dinov2Model

    file = fetch("nano/tower", nano.card.parts["tower"]).files["model.onnx"]
    state = read_dinov2_onnx(file)
    cfg = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14, hidden_act="gelu"
    )
    theirs = Dinov2Model(cfg).eval()
    missing, unexpected = theirs.load_state_dict(as_transformers(state), strict=False)
    assert missing == ["embeddings.mask_token"]  # of the pretraining only
    assert unexpected == []
    tower = nano.card.model.tower.model_copy(update={"image_size": 518}).build().eval()
    tower.load_published(state)
    pixels = tower.preprocess([photograph(200, 150)])
    expected = theirs(pixels).last_hidden_state
    tokens, pooled = tower(pixels)
    torch.testing.assert_close(tokens, expected[:, 1:], rtol=0, atol=1e-4)
    torch.testing.assert_close(pooled, expected[:, 0], rtol=0, atol=1e-4)

    # The names above are ours on both sides: what the file itself calls a query is our query.
    stored = {t.name: t for t in onnx.load(file, load_external_data=False).graph.initializer}
    for part, chunk in zip(("query", "key", "value"), state["blocks.3.attn.qkv.bias"].chunk(3), strict=True):
        bias = numpy_helper.to_array(stored[f"backbone.encoder.layer.3.attention.attention.{part}.bias"])
        assert np.array_equal(chunk.numpy(), bias)
