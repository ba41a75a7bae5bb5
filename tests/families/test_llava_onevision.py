"""LLaVA-OneVision against transformers, with random weights: ids, pixels, logits, greedy tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_llava_onevision as onevision
import torch
from PIL import Image
from published import left_padded
from random_llava_onevision import said
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

import vlm
from vlm.families.llava_onevision.config import ModelFields
from vlm.media.video.sampling import Clip

VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied, an earlier layer": {"tied": False, "layer": -2, "pieces": onevision.SPACES},
    "an even grid, nothing interpolated": {"vision": {"patch_size": 7}, "most": 9},
}


@pytest.fixture(scope="module", params=VARIANTS)
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """transformers' model and processor, and ours."""
    folder = tmp_path_factory.mktemp("llava_onevision")
    model, processor = onevision.write_folder(folder, **VARIANTS[request.param])
    return model, processor, vlm.load(folder)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def clip(frames: int, seed: int = 9) -> Clip:
    return Clip([picture(40, 30, seed + number) for number in range(frames)], [*map(float, range(frames))], "clip")


def theirs(
    processor: Any, conversations: list[list[dict[str, Any]]], seen: list[list[Any]], **options: Any
) -> tuple[Any, torch.Tensor]:
    """Their inputs of a batch, and all tiles in the order that ours has them in."""
    going_on = conversations[0][-1]["role"] == "assistant"
    texts = processor.apply_chat_template(
        conversations, add_generation_prompt=not going_on, continue_final_message=going_on
    )
    pictures = [[item for item in own if not isinstance(item, Clip)] for own in seen]
    clips = [item.frames for own in seen for item in own if isinstance(item, Clip)]
    expected = processor(
        text=texts, images=pictures if any(pictures) else None, videos=clips or None, return_tensors="pt", **options
    )
    counts = [image_size_to_num_patches((p.height, p.width), onevision.GRID, onevision.TILE) if len(own) == 1 else 1
              for own in pictures for p in own]  # fmt: skip
    tiles = [stack[:count] for stack, count in zip(expected.get("pixel_values", ()), counts, strict=True)]
    return expected, torch.cat([*tiles, *expected.get("pixel_values_videos", ()), torch.zeros(0, 3, 28, 28)])


CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "tall": ([said("image", "What is in the picture?")], [picture(50, 70)]),
    "wide": ([said("What? ", "image")], [picture(200, 41)]),
    "square": ([said("image", "?")], [picture(84, 84)]),
    "small": ([said("image")], [picture(9, 8)]),
    "thin": ([said("image")], [picture(3, 300)]),
    "several": (
        [said("image", "One, ", "image", " two"), said("Yes.", role="assistant"), said("And ", "image")],
        [picture(50, 70), picture(20, 20), picture(33, 99)],
    ),
    "clip": ([said("What happens?", "video")], [clip(3)]),
    "picture and clip": ([said("image", "video", "The same?")], [picture(60, 40), clip(2)]),
    "text": ([said("You are brief.", role="system"), said("Hello")], []),
    "a reply goes on": ([said("image", "What?"), said("It is", role="assistant")], [picture(30, 40)]),
}


@torch.inference_mode()
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_pixels_logits_and_greedy_tokens(three: tuple[Any, Any, Any], name: str) -> None:
    model, processor, ours = three
    messages, seen = CONVERSATIONS[name]
    expected, tiles = theirs(processor, [messages], [seen])
    inputs = ours.processor(messages, seen)
    assert torch.equal(inputs.input_ids, expected.input_ids)
    if seen:
        assert torch.equal(inputs.pixels, tiles)
        slots = sum(ours.processor.visual_tokens(grid) for grid in map(tuple, inputs.grids.tolist()))
        assert int(ours.model.slots(inputs.input_ids).sum()) == slots
    else:
        assert inputs.pixels is None
    logits = model(**expected).logits
    assert logits.std() > 0.5
    assert (ours.logits(*inputs) - logits).abs().max() < 1e-4 * logits.abs().max()
    generated = model.generate(**expected, max_new_tokens=8, do_sample=False)[:, expected.input_ids.shape[1] :]
    tokens = [token for token in generated[0].tolist() if token != onevision.END]
    assert ours.generate(*inputs, max_tokens=8) == [tokens]


@torch.inference_mode()
def test_a_batch(three: tuple[Any, Any, Any]) -> None:
    model, processor, ours = three
    rows = [CONVERSATIONS[name] for name in ("tall", "text", "several", "small")]
    expected, tiles = theirs(
        processor, [row[0] for row in rows], [row[1] for row in rows], padding=True, padding_side="left"
    )
    batch = left_padded([ours.processor(*row) for row in rows], ours.processor.pad_token)
    assert torch.equal(batch.input_ids, expected.input_ids)
    assert torch.equal(batch.pixels, tiles)
    logits, real = model(**expected).logits, expected.attention_mask.bool()
    assert (ours.logits(*batch) - logits)[real].abs().max() < 1e-4 * logits.abs().max()
    generated = model.generate(**expected, max_new_tokens=6, do_sample=False)[:, expected.input_ids.shape[1] :]
    ended = [row[: row.index(onevision.END)] if onevision.END in row else row for row in generated.tolist()]
    assert ours.generate(*batch, max_tokens=6) == ended


def test_a_clip_before_a_picture_is_shown_after_it(three: tuple[Any, Any, Any]) -> None:
    processor = three[2].processor
    one, other = picture(60, 40), clip(2)
    swapped = processor([said("video", "image", "?")], [other, one])
    for ours, expected in zip(swapped, processor([said("image", "video", "?")], [one, other]), strict=True):
        assert torch.equal(ours, expected)


def test_texts_with_marks_are_lists_of_parts(three: tuple[Any, Any, Any]) -> None:
    processor = three[2].processor
    for text, message, seen in [
        ("<image>What?", said("image", "What?"), [picture(30, 30)]),
        ("<video>\nSee <image>.", said("video", "\nSee ", "image", "."), [clip(1), picture(30, 20)]),
    ]:
        plain = processor([{"role": "user", "content": text}], seen)
        assert torch.equal(plain.input_ids, processor([message], seen).input_ids)


def test_captions_and_answers(three: tuple[Any, Any, Any]) -> None:
    model = three[2]
    pictures = [picture(50, 70), picture(33, 20, seed=1)]
    alone = [model.answer([p], ["What?"], max_tokens=5)[0] for p in pictures]
    assert model.answer(pictures, ["What?", "What?"], max_tokens=5) == alone
    sample = vlm.assets.root() / "data" / "samples" / "city_at_night.mp4"
    assert len(model.caption([sample], max_tokens=2)) == 1


def test_visual_tokens_at_the_published_sizes() -> None:
    size = {"height": 384, "width": 384}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size), onevision.tokenizer(), LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=27**2, vision_feature_select_strategy="full",
    )  # fmt: skip
    layout = ModelFields(text_config={}).layout("config.json")
    generator = torch.Generator().manual_seed(0)
    sizes = [(side, side) for side in (1, 384, 385, 2304, 5000)]
    sizes += [tuple((torch.rand(2, generator=generator) ** 3 * 4000).int().add(1).tolist()) for _ in range(300)]
    counted = processor._get_num_multimodal_tokens(
        image_sizes=[(height, width) for width, height in sizes], video_sizes=[(5, 9, 9)]
    )
    assert [layout.tokens(pair) for pair in sizes] == counted.num_image_tokens
    assert layout.tokens((5, 0)) == counted.num_video_tokens[0] == 5 * 14 * 14 + 1


# Folders as transformers 4 wrote them


def test_the_files_of_the_published_models(tmp_path: Path) -> None:
    onevision.write_folder(tmp_path, tied=False)
    messages, seen = CONVERSATIONS["picture and clip"]
    ours = vlm.load(tmp_path)
    inputs = ours.processor(messages, seen)
    logits = ours.logits(*inputs)
    weights = tmp_path / "model.safetensors"
    tower = "vision_tower."
    old = {name.replace(tower, f"{tower}vision_model."): tensor.clone() for name, tensor in load_file(weights).items()}
    save_file(old, weights)
    whole = json.loads((tmp_path / "processor_config.json").read_text())
    for name, key in [("preprocessor_config", "image_processor"), ("video_preprocessor_config", "video_processor")]:
        (tmp_path / f"{name}.json").write_text(json.dumps(whole.pop(key)))
    (tmp_path / "processor_config.json").write_text(json.dumps(whole))
    template = tmp_path / "chat_template.jinja"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    again = vlm.load(tmp_path)
    for one, other in zip(again.processor(messages, seen), inputs, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(again.logits(*inputs), logits)


def test_what_is_seen_has_its_cost_beforehand(three: tuple[Any, Any, Any]) -> None:
    model = three[2]
    for media in (picture(90, 40), clip(3)):
        (budget,) = model.budget([media], ["What is it?"])
        ids = model.processor.question("What is it?", media).input_ids
        slots = (ids == model.processor.image_token) | (ids == model.processor.video_token)
        assert (budget.visual, budget.prompt) == (int(slots.sum()), int((~slots).sum()))
    assert str(model.budget([clip(3)])[0]).startswith("3 frames, ")
