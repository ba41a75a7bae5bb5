"""Lower precision is a faster way to almost the same vectors."""

from __future__ import annotations

from pathlib import Path

import folders
import pytest
import tiny
import torch
from folders import photographs, shaken
from torch import Tensor
from torch.nn import functional as F

from vlm.errors import BadInput
from vlm.media.images import load_image
from vlm.models.assembled import Assembled
from vlm.vision import int8_products, precision
from vlm.vision.int8_products import OneDNNProduct, PlainProduct, Product, Scale
from vlm.vision.precision import Bfloat16, int8
from vlm.vision.tower import TowerConfig, VisionTower

SAMPLES = sorted((Path(__file__).parents[2] / "data" / "samples").glob("*.jpg"))


@pytest.fixture(params=[PlainProduct, OneDNNProduct])
def product(request: pytest.FixtureRequest) -> type[Product]:
    """Both ways to multiply; oneDNN's is left out where it takes hundreds of times as long as float32."""
    if request.param is OneDNNProduct and int8_products.fastest(384, 1536) is not OneDNNProduct:
        pytest.skip("on this CPU oneDNN's INT8 products are slower than float32's")
    return request.param


def tower_of(**changes: object) -> VisionTower:
    return shaken(TowerConfig.model_validate({**tiny.TOWER.model_dump(), **changes}).build())


def cosines(one: Tensor, other: Tensor) -> Tensor:
    assert one.dtype == other.dtype == torch.float32
    return F.cosine_similarity(one, other, dim=-1)


@torch.inference_mode()
def test_bfloat16_is_near_and_leaves_the_tower_alone() -> None:
    tower = tower_of()
    pixels = tower.preprocess(photographs())
    expected, got = tower(pixels), Bfloat16(tower)(pixels)
    assert cosines(got.pooled_BD, expected.pooled_BD).min() > 0.999
    assert cosines(got.tokens_BND, expected.tokens_BND).min() > 0.99
    assert torch.equal(tower(pixels).pooled_BD, expected.pooled_BD)


@torch.inference_mode()
def test_bfloat16_takes_native_shapes(tmp_path: Path) -> None:
    from vlm.vision.towers import load

    folders.save_timm(tmp_path, *folders.NAFLEX)
    tower = load(tmp_path, budget=20)
    pixels = tower.preprocess(photographs())
    assert cosines(Bfloat16(tower)(pixels).pooled_BD, tower(pixels).pooled_BD).min() > 0.99


@torch.inference_mode()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "test_vit2"},
        {"options": {"init_values": 0.3}},
        {"options": {"qkv_bias": False}},
        {"options": {"act_layer": "gelu_tanh"}, "activation": "gelu_tanh"},
        {"layer": -2},
    ],
)
def test_int8_is_near_and_leaves_the_tower_alone(changes: dict[str, object], product: type[Product]) -> None:
    tower = tower_of(**changes)
    pixels = tower.preprocess(photographs())
    expected = tower(pixels)
    got = int8(tower, photographs()[:4], product=product)(pixels)
    assert cosines(got.pooled_BD, expected.pooled_BD).min() > 0.995
    assert cosines(got.tokens_BND, expected.tokens_BND).mean() > 0.99
    assert torch.equal(tower(pixels).pooled_BD, expected.pooled_BD)


@torch.inference_mode()
def test_int8_of_a_picture_does_not_depend_on_its_batch(product: type[Product]) -> None:
    tower = int8(tower_of(), photographs()[:4], product=product)
    pixels = tower.preprocess(photographs())
    together = tower(pixels)
    for number in range(len(pixels)):
        alone = tower(pixels[number : number + 1])
        torch.testing.assert_close(alone.tokens_BND[0], together.tokens_BND[number], rtol=0, atol=1e-3)


@torch.inference_mode()
def test_both_ways_multiply_the_same(product: type[Product]) -> None:
    """Bytes in, float32 or bytes out, alone or onto what is there: float64 of what the bytes stand for."""
    torch.manual_seed(0)
    weight_ED, bias_E, scale, to = torch.randn(24, 16), torch.randn(24), Scale(0.03, -7), Scale(0.05, -100)
    x = torch.randint(-128, 128, (9, 16), dtype=torch.int8)
    step_E, rounded_ED = int8_products.rounded_rows(weight_ED)
    exact = ((x.double() + 7) * 0.03) @ (rounded_ED * step_E[:, None]).double().T + bias_E
    layer = product(weight_ED, bias_E, scale)
    torch.testing.assert_close(layer(x, torch.float32), exact.float(), rtol=1e-5, atol=1e-5)
    onto = torch.ones(9, 24)
    assert layer(x, torch.float32, onto=onto).data_ptr() == onto.data_ptr()
    torch.testing.assert_close(onto, exact.float() + 1, rtol=1e-5, atol=1e-5)
    for form in ("none", "tanh"):
        expected = (F.gelu(exact, approximate=form) / to.step + to.zero).round().clamp(-128, 127)
        assert (layer.gelu(x, form, to).double() - expected).abs().max() <= 1  # a half may be rounded either way


def test_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_products, "supported", lambda: False)
    assert int8_products.fastest(20, 40) is PlainProduct
    assert int8(tower_of(), photographs()[:1]).product is int8_products.fastest(tiny.TOWER.width, tiny.TOWER.width * 4)
    monkeypatch.setattr(int8_products, "supported", lambda: True)
    seconds = iter([0.1, 100.0, 100.0, 0.1, 0.05, 0.05])
    monkeypatch.setattr(int8_products, "_seconds", lambda call, repeats: next(seconds))
    if not (torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()):
        pytest.skip("no oneDNN kernels to build")
    assert int8_products.fastest(24, 40) is PlainProduct
    assert int8_products.fastest(28, 40) is OneDNNProduct


@torch.inference_mode()
def test_smoothing_and_folding_change_no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block with nothing rounded - every product in float32, of what bytes stand for - is timm's block."""

    class Exact:
        def __init__(self, weight_ED: Tensor, bias_E: Tensor | None, scale: Scale):
            self.weight_ED, self.bias_E, self.scale = weight_ED, bias_E, scale

        def __call__(self, x: Tensor, dtype: torch.dtype, onto: Tensor | None = None) -> Tensor:
            return F.linear((x - self.scale.zero) * self.scale.step, self.weight_ED, self.bias_E) + (
                0 if onto is None else onto
            )

        def gelu(self, x: Tensor, form: str, to: Scale) -> Tensor:
            return F.gelu(self(x, x.dtype), approximate=form) / to.step + to.zero

    monkeypatch.setattr(precision, "as_bytes", lambda x: x)
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    tower = tower_of(options={"init_values": 0.3})
    pixels = tower.preprocess(photographs())
    got = int8(tower, photographs(), product=Exact)(pixels)
    torch.testing.assert_close(got.tokens_BND, tower(pixels).tokens_BND, rtol=1e-4, atol=1e-4)


def test_int8_refuses_what_it_would_get_wrong(tmp_path: Path) -> None:
    from vlm.vision.towers import load

    folders.save_timm(tmp_path / "convnext", *folders.TIMM["convnext"])
    folders.save_open_clip(tmp_path / "clip", folders.OPEN_CLIP["openai"])
    for name in ("convnext", "clip"):
        with pytest.raises(BadInput, match="INT8 is for plain ViTs of timm"):
            int8(load(tmp_path / name), photographs())
    with pytest.raises(BadInput, match="INT8 is for plain ViTs of timm"):
        int8(tower_of(options={"qk_norm": True}), photographs())
    with pytest.raises(BadInput, match="INT8 has the activations gelu, gelu_tanh, not quick_gelu"):
        int8(tower_of(options={"act_layer": "quick_gelu"}, activation="quick_gelu"), photographs())
    with pytest.raises(BadInput, match="needs photographs"):
        int8(tower_of(), [])


@pytest.mark.weights
@torch.inference_mode()
def test_trained_weights_on_photographs_keep_their_directions(nano: Assembled) -> None:
    """Ranges from one half of the samples, vectors of the other half."""
    images = [load_image(path) for path in SAMPLES]
    tower = nano.model.tower
    pixels = tower.preprocess(images[1::4])
    expected = tower(pixels)
    for fast in (Bfloat16(tower), int8(tower, images[::2])):
        got = fast(pixels)
        assert cosines(got.pooled_BD, expected.pooled_BD).min() > 0.99
        assert cosines(got.tokens_BND, expected.tokens_BND).mean() > 0.99
