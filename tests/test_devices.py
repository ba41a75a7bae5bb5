"""Models run on the device and in the type that is asked for; nothing assumes the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import vlm
from vlm.cli import main
from vlm.devices import device_of, dtype_of
from vlm.errors import BadInput
from vlm.media.open import Media

sys.path.insert(0, str(Path(__file__).parent / "facade"))
import kinds

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
CLIP = Media((PICTURE, PICTURE.rotate(90)), (0.0, 1.0), duration=2.0)
ACCELERATORS = [
    name for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if there
]
KINDS = ["a card", "SmolVLM", "LLaVA-OneVision", "DeepSeek-VL2"]


def test_names() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto") == device_of(None)
    if not ACCELERATORS:
        assert device_of("auto") == torch.device("cpu")
    assert dtype_of("bfloat16") is torch.bfloat16
    assert dtype_of(torch.float16) is torch.float16
    assert dtype_of("auto") is torch.float32
    with pytest.raises(BadInput, match="expected auto, cpu, cuda"):
        device_of("gpu")
    with pytest.raises(BadInput, match=r"device cuda:99: there is none on this machine"):
        device_of("cuda:99")
    with pytest.raises(BadInput, match=r"unknown dtype 'float8'; did you mean 'float32'\?"):
        dtype_of("float8")


def test_commands_refuse_a_device_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "a.jpg", "--device", "cuda:99"]) == 2
    assert "device cuda:99: there is none on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_held_to_float32(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of random weights: within 6 % of their scale on average, the same first token where it leads clearly."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    name = kinds.write(kind, tmp_path / "model")
    if kind == "a card":  # without trained weights its heads start anew at each load
        name = str(vlm.load(name, offline=True).save(tmp_path / "saved"))
    exact, near = vlm.load(name, offline=True), vlm.load(name, dtype="bfloat16", offline=True)
    assert near.model.dtype == torch.bfloat16
    ids, pixels, grids = exact.processor([{"role": "user", "content": "<image>What is it?"}], [PICTURE])
    one, other = exact.logits(ids, pixels, grids)[0], near.logits(ids, pixels, grids)[0]
    assert other.dtype == torch.float32
    if kind != "a card":  # whose random routers are indifferent: rounding changes the experts, and with them everything
        assert (one - other).abs().mean() < 0.06 * one.std()
        best = one.topk(2, dim=-1).values
        clear = best[:, 0] - best[:, 1] > one.std()
        assert (one.argmax(-1) == other.argmax(-1))[clear].all()
    assert len(near.caption([PICTURE, CLIP], max_tokens=4)) == 2
    if kind == "a card":
        vectors = [model.embed_images([PICTURE, CLIP]) for model in (exact, near)]  # no router is asked
        assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.98
        assert near.embed_texts(["a cat"]).dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_make_their_tensors_where_their_inputs_are(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On `meta` a tensor made on the CPU by mistake cannot be mixed in: shapes come out as on a CPU."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    model = kinds.load(kind, tmp_path / "model").model
    layout_pixels = torch.zeros(model.arrangement.views((2, 1)), 3, *[model.tower.cfg.image_size] * 2)
    expected = model.project(model.encode_patches(layout_pixels), (2, 1)).shape
    hidden = model.language.hidden(torch.zeros(2, 5, model.language.cfg.width)).shape
    moved = model.to("meta")
    seen = moved.project(moved.encode_patches(layout_pixels.to("meta")), (2, 1))
    assert (seen.device.type, seen.shape) == ("meta", expected)
    if not model.language.routers():  # what a router chooses is data
        x_BTD = torch.zeros(2, 5, model.language.cfg.width, device="meta")
        assert moved.language.hidden(x_BTD).shape == hidden


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_accelerator_gives_what_the_cpu_gives(
    kind: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    name = str(kinds.load(kind, tmp_path / "model").save(tmp_path / "saved"))
    here, there = vlm.load(name, device="cpu", offline=True), vlm.load(name, device=device, offline=True)
    ids, pixels, grids = here.processor([{"role": "user", "content": "<image>What is it?"}], [PICTURE])
    torch.testing.assert_close(
        there.logits(ids, pixels, grids).cpu(), here.logits(ids, pixels, grids), rtol=1e-3, atol=1e-3
    )
    assert there.caption([PICTURE, CLIP], max_tokens=8) == here.caption([PICTURE, CLIP], max_tokens=8)
    texts = ["a dog", "a cat"]
    assert there.match([PICTURE] * 2, texts) == pytest.approx(here.match([PICTURE] * 2, texts), abs=1e-3)
    if kind == "a card":
        np.testing.assert_allclose(there.embed_texts(texts), here.embed_texts(texts), atol=1e-4)
        np.testing.assert_allclose(there.embed_images([PICTURE, CLIP]), here.embed_images([PICTURE, CLIP]), atol=1e-4)


def test_a_card_of_native_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tower with a budget of patches keeps a picture's shape, and the prompt has as many slots as it has patches."""
    from vlm.models.card_processor import CardProcessor
    from vlm.models.config import ModelConfig

    tower = {
        "library": "timm", "name": "naflexvit_base_patch16_gap", "image_size": 64, "patch": 16, "width": 32,
        "budget": 20, "activation": "gelu", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
        "options": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    }  # fmt: skip
    data = tiny.MODEL.model_dump() | {"tower": tower, "projector": {"kind": "mlp", "depth": 2}}
    cfg = ModelConfig.model_validate(data | {"alignment": None, "text_width": None})
    built = cfg.tower.build()
    model = cfg.build(built, tiny.language()).eval()
    from vlm.conversation.tokenizer import TextTokenizer

    processor = CardProcessor(cfg, TextTokenizer(tiny.write_tokenizer(tmp_path / "tokenizer.json")), built.preprocess)
    wide, tall = Image.new("RGB", (160, 40), "red"), Image.new("RGB", (40, 160), "blue")
    ids, pixels, grids = processor([{"role": "user", "content": "<image> or <image>?"}], [wide, tall])
    counts = [int(w * h) for w, h in grids]
    assert all(0 < count <= 20 for count in counts)
    assert grids[0].tolist() == grids[1].tolist()[::-1]
    assert int(model.slots(ids).sum()) == sum(counts)
    with torch.no_grad():
        assert model(ids, pixels, grids).shape == (1, ids.shape[1], cfg.language.vocab_size)
        alone = processor([{"role": "user", "content": "<image>"}], [tall])
        together = model.visual(pixels, grids)[1]
        torch.testing.assert_close(together, model.visual(alone.pixels, alone.grids)[0], rtol=1e-5, atol=1e-5)
