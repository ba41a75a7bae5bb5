"""Every library's tower gives its own tokens, its own pooled vector and its own pixels."""

from __future__ import annotations

from pathlib import Path

import folders
import open_clip
import pytest
import timm
import torch
import torchvision
from folders import NAFLEX, OPEN_CLIP, TIMM, TRANSFORMERS, photographs
from PIL import Image
from timm.data.naflex_dataset import NaFlexCollator
from torch import Tensor

from vlm.errors import BadInput
from vlm.vision.native_resolution import Patches
from vlm.vision.towers import load, read_config
from vlm.vision.towers.open_clip import Tower as OpenClipTower
from vlm.vision.towers.open_clip import load_pair
from vlm.vision.transforms import to_pixels


def near(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=tolerance)


def pixels_of(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("kind", TIMM)
def test_timm(tmp_path: Path, kind: str) -> None:
    name, options = TIMM[kind]
    theirs = folders.save_timm(tmp_path, name, options)
    tower, pixels = load(tmp_path), pixels_of(options.get("img_size", 64))
    tokens, pooled = tower(pixels)
    features = theirs.forward_features(pixels)
    near(tokens, features.flatten(2).mT if features.ndim == 4 else features[:, theirs.num_prefix_tokens :])
    near(pooled, theirs.forward_head(features, pre_logits=True))
    rows, columns = tower.grids(pixels)[0]
    assert tokens.shape == (2, rows * columns, tower.cfg.width)
    assert rows == columns == tower.cfg.grid

    early = load(tmp_path, layer=-2)
    _, (block,) = theirs.forward_intermediates(pixels, [-2])
    tokens, pooled_too = early(pixels)
    near(tokens, block.flatten(2).mT)
    near(pooled_too, pooled)


@pytest.mark.parametrize("crop", [{"crop_mode": "center"}, {"crop_mode": "squash"}, {"crop_mode": "border"}])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_timms_preprocessing(tmp_path: Path, crop: dict[str, str], share: float) -> None:
    interpolation = "bilinear" if share == 1 else "bicubic"
    data = {**crop, "crop_pct": share, "interpolation": interpolation, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.2)}
    folders.save_timm(tmp_path, "test_vit", {"img_size": 64}, **data)
    transform = timm.data.create_transform(input_size=64, **data)
    near(load(tmp_path).preprocess(photographs()), torch.stack([transform(image) for image in photographs()]), 1e-5)


def test_the_faster_kernel_is_within_two_levels_of_pillows(tmp_path: Path) -> None:
    tower = folders.save_timm(tmp_path, *TIMM["cls"]) and load(tmp_path)
    levels = (tower.preprocess(photographs(), kernel="torchvision") - tower.preprocess(photographs())).abs() * 255
    assert 0 < levels.max() * max(tower.cfg.std) < 2.5


def test_a_picture_too_thin_to_resize_is_refused(tmp_path: Path) -> None:
    folders.save_timm(tmp_path, *TIMM["cls"])
    with pytest.raises(BadInput, match=r"picture of 1x40000: expected at most \d+ pixels once its short side is \d+"):
        load(tmp_path).preprocess([Image.new("RGB", (1, 40000))])


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, -2])
def test_timms_native_aspect_ratios(tmp_path: Path, layer: int) -> None:
    name, options = NAFLEX
    theirs = folders.save_timm(tmp_path, name, options, classes=0)
    tower = load(tmp_path, budget=20, layer=layer)
    ours = tower.preprocess(photographs())
    assert isinstance(ours, Patches)
    transform = timm.data.create_transform(
        64, naflex=True, patch_size=16, max_seq_len=20, patchify=True, interpolation="bicubic",
        mean=tower.cfg.mean, std=tower.cfg.std,
    )  # fmt: skip
    batch, _ = NaFlexCollator(max_seq_len=20)([(transform(image), 0) for image in photographs()])
    length = ours.patches_BNP.shape[1]
    near(ours.patches_BNP, batch["patches"][:, :length], 1e-5)
    assert torch.equal(ours.valid_BN, batch["patch_valid"][:, :length])
    assert torch.equal(ours.coordinates_BN2, batch["patch_coord"][:, :length])
    tokens, pooled = tower(ours)
    features = theirs.forward_features(batch["patches"], batch["patch_coord"], batch["patch_valid"])
    near(pooled, theirs.forward_head(**features, pre_logits=True))
    expected = features["patches"]
    if layer == -2:
        expected = theirs.forward_intermediates(batch, [-2], output_fmt="NLC", intermediates_only=True)[0]
    for number, (rows, columns) in enumerate(tower.grids(ours)):
        near(tokens[number, : rows * columns], expected[number, : rows * columns])


@torch.no_grad()
@pytest.mark.parametrize("kind", OPEN_CLIP)
def test_open_clip(tmp_path: Path, kind: str) -> None:
    theirs = folders.save_open_clip(tmp_path, OPEN_CLIP[kind])
    tower = load(tmp_path)
    assert isinstance(tower, OpenClipTower)
    pixels = pixels_of(tower.cfg.image_size)
    tokens, pooled = tower(pixels)
    near(tower.project(pooled), theirs.encode_image(pixels))
    assert tokens.shape == (2, tower.cfg.grid**2, tower.cfg.width)
    if kind in ("openai", "mean"):
        theirs.visual.output_tokens = True
        near(tokens, theirs.visual(pixels)[1])
    elif kind != "attention pool":
        features = theirs.visual.trunk.forward_features(pixels)
        near(tokens, features.flatten(2).mT if features.ndim == 4 else features[:, 1:])
    for layer in (-2, -1) if kind == "attention pool" else (-2,):
        early = load(tmp_path, layer=layer)(pixels)
        block = theirs.visual.forward_intermediates(pixels, [layer])["image_intermediates"][0]
        near(early.tokens_BND, block.flatten(2).mT)
        near(early.pooled_BD, pooled)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["openai", "siglip of timm"])
def test_both_sides_of_open_clip(tmp_path: Path, kind: str) -> None:
    theirs = folders.save_open_clip(tmp_path, OPEN_CLIP[kind])
    texts = ["a photo of a cat", "two dogs in the snow, one of them black"]
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}", pretrained_text=False)
    images = torch.stack([transform(image) for image in photographs()])
    pair = load_pair(tmp_path)
    near(pair.embed_texts(texts), theirs.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts), normalize=True))
    near(pair.embed_images(photographs()), theirs.encode_image(images, normalize=True))
    assert pair.scale == pytest.approx(float(theirs.logit_scale.exp()))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_open_clips_preprocessing(tmp_path: Path, mode: str, interpolation: str) -> None:
    data = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 7}
    folders.save_open_clip(tmp_path, OPEN_CLIP["openai"], **data)
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}", pretrained_text=False)
    ours = load(tmp_path).preprocess(photographs())
    near(ours, torch.stack([transform(image) for image in photographs()]), 1e-5)


@torch.no_grad()
def test_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.vision.towers.torchvision._create", folders.small_vit)
    theirs = folders.save_torchvision(tmp_path)
    tower, pixels = load(tmp_path), pixels_of(224)
    seen: list[Tensor] = []
    for module in (theirs.encoder.layers[-2], theirs.encoder):
        module.register_forward_hook(lambda module, args, output: seen.append(output))
    theirs(pixels)
    tokens, pooled = tower(pixels)
    near(tokens, seen[1][:, 1:])
    near(pooled, seen[1][:, 0])
    near(load(tmp_path, layer=-2)(pixels).tokens_BND, seen[0][:, 1:])
    assert load(tmp_path, image_size=96)(pixels_of(96)).tokens_BND.shape == (2, 9, 32)


@pytest.mark.parametrize("name", ["vit_b_16", "vit_l_16"])
def test_torchvisions_preprocessing(tmp_path: Path, name: str) -> None:
    for weights in torchvision.models.get_model_weights(name):
        (tmp_path / "config.json").write_text(
            f'{{"library": "torchvision", "architecture": "{name}", "weights": "{weights.name}"}}'
        )
        cfg = read_config(tmp_path)
        theirs = weights.transforms()
        expected = torch.stack([theirs(image) for image in photographs()[:3]])
        ours = to_pixels(photographs()[:3], cfg.image_size, cfg.mean, cfg.std, cfg.interpolation, cfg.framing)
        near(ours, expected, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers(tmp_path: Path, kind: str) -> None:
    theirs, processor = folders.save_transformers(tmp_path, *TRANSFORMERS[kind])
    theirs = getattr(theirs, "vision_model", theirs)
    inputs = processor(images=photographs(), return_tensors="pt")
    tower, early = load(tmp_path), load(tmp_path, layer=-2)
    ours = tower.preprocess(photographs())
    out = theirs(**inputs, output_hidden_states=True)
    tokens, pooled = tower(ours)
    if isinstance(ours, Patches):
        length = ours.patches_BNP.shape[1]
        near(ours.patches_BNP, inputs["pixel_values"][:, :length], 1e-5)
        assert torch.equal(ours.valid_BN.int(), inputs["pixel_attention_mask"][:, :length])
        assert torch.equal(torch.tensor(ours.grids), inputs["spatial_shapes"])
    else:
        near(ours, inputs["pixel_values"], 1e-5)
    for number, (rows, columns) in enumerate(tower.grids(ours)):
        count = rows * columns
        first = 0 if isinstance(ours, Patches) else out.last_hidden_state.shape[1] - count
        near(tokens[number, :count], out.last_hidden_state[number, first : first + count])
        near(early(ours).tokens_BND[number, :count], out.hidden_states[-2][number, first : first + count])
    near(pooled, tokens.mean(1) if out.pooler_output is None else out.pooler_output)


@torch.no_grad()
def test_another_size_resamples_the_positions(tmp_path: Path) -> None:
    theirs, _ = folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    tower, pixels = load(tmp_path, image_size=96), pixels_of(96)
    assert tower.cfg.framing.side == 96
    expected = theirs.vision_model(pixels, interpolate_pos_encoding=True)
    near(tower(pixels).tokens_BND, expected.last_hidden_state[:, 1:])
