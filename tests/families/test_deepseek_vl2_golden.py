"""DeepSeek-VL2 against outputs of the authors' own code at every stage (random weights)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import __version__ as pillow
from published import left_padded

import vlm
from vlm.vision.tiling import best_resolution

VARIANTS = ["V1", "V4"]
CASES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Path:
    return shared / "golden" / "deepseek_vl2"


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, goldens: Path) -> tuple[Path, Any]:
    folder = goldens / request.param
    model = vlm.load(folder)
    return folder, model


def gap(ours: torch.Tensor, expected: np.ndarray) -> float:
    assert ours.shape == expected.shape
    return float((ours - torch.from_numpy(expected)).abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_every_stage(variant: tuple[Path, Any], case: str) -> None:
    folder, model = variant
    golden = np.load(folder / "golden.npz")
    ids, pixels = torch.from_numpy(golden[f"{case}_input_ids"]), torch.from_numpy(golden[f"{case}_images"][0])
    grids = golden[f"{case}_images_spatial_crop"][0]
    if case != "a":
        patches = model.model.tower(pixels).tokens_BND
        assert gap(patches, golden[f"{case}_vision_out"]) < 1e-4
        assert gap(model.model.projector(patches), golden[f"{case}_projector_out"]) < 1e-4
    assert gap(model.model.embed(ids, model.model.visual(pixels, grids)), golden[f"{case}_inputs_embeds"]) < 1e-4
    assert gap(model.logits(ids, pixels, grids), golden[f"{case}_logits"]) < 3e-4
    if case == "a":  # the dummy picture of a text may be left out
        assert torch.equal(model.logits(ids), model.logits(ids, pixels, grids))


def test_greedy_tokens(variant: tuple[Path, Any]) -> None:
    folder, model = variant
    golden = np.load(folder / "golden.npz")
    ids, pixels, grids = golden["c_input_ids"], golden["c_images"][0], golden["c_images_spatial_crop"][0]
    expected = golden["c_greedy_tokens_cache"].reshape(-1).tolist()
    assert model.generate(ids, pixels, grids, max_tokens=12) == [expected]
    said = torch.tensor([expected])
    logits = model.logits(torch.cat([torch.from_numpy(ids), said], dim=1), pixels, grids)
    assert gap(logits[:, -13:-1].reshape(12, -1), golden["c_greedy_step_logits"].reshape(12, -1)) < 3e-4


def test_a_batch_padded_on_the_left(variant: tuple[Path, Any]) -> None:
    folder, model = variant
    golden, batch = np.load(folder / "golden.npz"), np.load(folder / "golden_batch.npz")
    pixels, grids = golden["b_images"][0], batch["images_spatial_crop"]  # of the first row it says (0, 0): no picture
    logits = model.logits(batch["input_ids"], pixels, grids)
    assert gap(logits[:, -1], batch["logits_last"]) < 3e-4
    assert gap(logits[0, batch["attention_mask"][0].astype(bool)], batch["logits_row0_valid"]) < 3e-4
    masked = model.logits(batch["input_ids"], pixels, grids, mask=batch["attention_mask"])
    assert torch.equal(masked, logits), "padding at the start is seen without a mask"
    assert model.generate(batch["input_ids"], pixels, grids, max_tokens=8) == batch["generated"].tolist()


def read_cases(goldens: Path) -> tuple[dict[str, Any], Any]:
    folder = goldens / "processor"
    return json.loads((folder / "processor_golden.json").read_text()), np.load(folder / "processor_golden.npz")


def test_ids_grids_and_pixels_of_the_processor(goldens: Path) -> None:
    processor = vlm.load(goldens / "V1").processor
    described, arrays = read_cases(goldens)
    for name, case in described["cases"].items():
        pictures = [goldens / "processor" / "images" / f"{picture}.png" for picture in case["images"]]
        ids, pixels, grids = processor(case["conversations"], pictures)
        assert ids.shape[0] == 1
        assert np.array_equal(ids[0], arrays[f"{name}__input_ids"].reshape(-1)), name
        slots = arrays[f"{name}__images_seq_mask"].reshape(-1).astype(bool)
        assert np.array_equal(ids[0] == processor.image_token, slots), name
        if not pictures:
            assert pixels is None
            assert grids is None
            continue
        assert grids.tolist() == case["images_spatial_crop"], name
        assert [processor.visual_tokens(grid) for grid in grids.tolist()] == case["num_image_tokens"], name
        found = [hashlib.sha256(tile.numpy().tobytes()).hexdigest() for tile in pixels]
        assert found == [tile["sha256_f32"] for tile in case["tiles"]], f"{name}: made with Pillow {pillow}"


def test_pictures_of_the_golden_logits(variant: tuple[Path, Any], goldens: Path) -> None:
    """From messages and pictures to the golden logits, two conversations in one batch."""
    folder, model = variant
    golden = np.load(folder / "golden.npz")
    checks = json.loads((folder / "checks.json").read_text())
    rows = []
    for case in "bd":
        pictures = []
        for width, height, seed, block in checks["image_recipes_w_h_seed_block"][case]:
            rng = np.random.default_rng(seed)
            coarse = rng.integers(0, 256, (-(-height // block), -(-width // block), 3), dtype=np.uint8)
            pictures.append(np.repeat(np.repeat(coarse, block, 0), block, 1)[:height, :width])
        text = checks["prompts"][case].removeprefix("<|User|>: ").removesuffix("\n\n<|Assistant|>:")
        rows.append(model.processor([{"role": "user", "content": text}], pictures))
        assert gap(rows[-1].pixels, golden[f"{case}_images"][0]) == 0
    logits = model.logits(*left_padded(rows, model.processor.pad_token))
    for row, case in zip(logits, "bd", strict=True):
        expected = golden[f"{case}_logits"][0]
        assert gap(row[-len(expected) :], expected) < 3e-4


def test_the_resolution_of_2000_sizes(goldens: Path) -> None:
    described, arrays = read_cases(goldens)
    candidates = [tuple(size) for size in described["candidate_resolutions"]]
    chosen = [best_resolution(tuple(size), candidates) for size in arrays["best_resolution_sizes"].tolist()]
    assert chosen == [tuple(size) for size in arrays["best_resolution_choice"].tolist()]
