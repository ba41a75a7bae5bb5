"""SmolVLM and Idefics3 against transformers, with random weights: ids, pixels, logits, greedy tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_smolvlm as smolvlm
import torch
from PIL import Image
from published import left_padded
from random_smolvlm import said

import vlm
from vlm.families.smolvlm.load import position_of_patch
from vlm.families.smolvlm.prompt import number_words
from vlm.media.video.sampling import Clip

VARIANTS: dict[str, dict[str, Any]] = {
    "smolvlm": {},
    "tied": {"tied": True},
    "whole pictures": {"splitting": False},
    "rounded positions": {"vision": {"image_size": 50, "patch_size": 2, "num_hidden_layers": 1}, "longest": 100},
    "idefics3": {"family": "idefics3"},
}


@pytest.fixture(scope="module", params=VARIANTS)
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """transformers' model and processor, and ours."""
    folder = tmp_path_factory.mktemp("smolvlm")
    model, processor = smolvlm.write_folder(folder, **VARIANTS[request.param])
    return model, processor, vlm.load(folder)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[tuple[int, int]]]] = {
    "one": ([said("image", "What is in the picture?")], [(50, 70)]),
    "wide": ([said("What? ", "image")], [(90, 20)]),
    "thin": ([said("image")], [(300, 2)]),
    "square": ([said("image", "?")], [(48, 48)]),
    "several": ([said("image", "One, ", "image", " two"), said("Yes.", role="assistant"), said("And ", "image")],
                [(50, 70), (20, 20), (33, 99)]),
    "text": ([said("You are brief.", role="system"), said("Hello")], []),
}  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_pixels_logits_and_greedy_tokens(three: tuple[Any, Any, Any], name: str) -> None:
    model, processor, ours = three
    messages, sizes = CONVERSATIONS[name]
    pictures = [picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    expected = processor(text=text, images=pictures or None, return_tensors="pt")
    inputs = ours.processor(messages, pictures)
    assert torch.equal(inputs.input_ids, expected.input_ids)
    if pictures:
        assert torch.equal(inputs.pixels, expected.pixel_values[0])
        slots = sum(ours.processor.visual_tokens(grid) for grid in inputs.grids.tolist())
        assert int((inputs.input_ids == ours.processor.image_token).sum()) == slots
    else:
        assert inputs.pixels is None
    logits = model(**expected).logits
    assert logits.std() > 0.5
    assert (ours.logits(*inputs) - logits).abs().max() < 3e-4
    generated = model.generate(**expected, max_new_tokens=8, do_sample=False)[:, expected.input_ids.shape[1] :]
    end = smolvlm.CONTROL.index("<end_of_utterance>")
    tokens = [token for token in generated[0].tolist() if token != end]
    assert ours.generate(*inputs, max_tokens=8) == [tokens]


@torch.inference_mode()
@pytest.mark.parametrize(("frames", "duration"), [(4, 9.7), (12, None), (1, 75.0)])
def test_a_clip(three: tuple[Any, Any, Any], frames: int, duration: float | None) -> None:
    model, processor, ours = three
    if not hasattr(processor, "video_processor"):
        pytest.skip("Idefics3 has no clips")
    indices = [7 * number for number in range(frames)]
    stack = [picture(40, 30, seed) for seed in range(frames)]
    clip = Clip(stack, [index / 1.5 for index in indices], "clip", duration)
    messages = [said("video", "What happens?")]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    metadata = {"total_num_frames": 500, "fps": 1.5, "frames_indices": indices, "duration": duration}
    expected = processor(
        text=text, videos=[[*stack]], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    inputs = ours.processor(messages, [clip])
    assert torch.equal(inputs.input_ids, expected.input_ids)
    assert torch.equal(inputs.pixels, expected.pixel_values[0])
    assert (ours.logits(*inputs) - model(**expected).logits).abs().max() < 3e-4
    assert torch.equal(ours.processor.question("What happens?", clip).input_ids, inputs.input_ids)


@torch.inference_mode()
def test_a_batch(three: tuple[Any, Any, Any]) -> None:
    model, processor, ours = three
    rows = [CONVERSATIONS[name] for name in ("one", "text", "several")]
    texts = [processor.apply_chat_template(messages, add_generation_prompt=True) for messages, _ in rows]
    pictures = [[picture(*size) for size in sizes] for _, sizes in rows]
    inputs = [ours.processor(messages, own) for (messages, _), own in zip(rows, pictures, strict=True)]
    batch = left_padded(inputs, ours.processor.pad_token)
    expected = processor(text=texts, images=pictures, return_tensors="pt", padding=True, padding_side="left")
    assert torch.equal(batch.input_ids, expected.input_ids)
    logits, real = model(**expected).logits, expected.attention_mask.bool()
    assert (ours.logits(*batch) - logits)[real].abs().max() < 3e-4


def test_texts_with_marks_are_lists_of_parts(three: tuple[Any, Any, Any]) -> None:
    processor = three[2].processor
    for text, message in [
        ("<image>What?", said("image", "What?")),
        ("See <image> and <image>.", said("See ", "image", " and ", "image", ".")),
    ]:
        pictures = [picture(30, 30)] * text.count("<image>")
        plain = processor([{"role": "user", "content": text}], pictures)
        assert torch.equal(plain.input_ids, processor([message], pictures).input_ids)


def test_a_reply_that_is_begun_goes_on(three: tuple[Any, Any, Any]) -> None:
    processor = three[2].processor
    asked = [said("image", "What?")]
    fresh = processor(asked, [picture(30, 30)]).input_ids[0].tolist()
    empty = processor([*asked, {"role": "assistant", "content": ""}], [picture(30, 30)]).input_ids[0].tolist()
    assert empty == fresh
    begun = processor([*asked, said("It is", role="assistant")], [picture(30, 30)]).input_ids[0].tolist()
    assert begun == fresh + processor.tokenizer.encode(" It is")


def test_captions_and_answers(three: tuple[Any, Any, Any]) -> None:
    model = three[2]
    pictures = [picture(50, 70), picture(33, 20, seed=1)]
    alone = [model.answer([p], ["What?"], max_tokens=5)[0] for p in pictures]
    assert model.answer(pictures, ["What?", "What?"], max_tokens=5) == alone
    clip = vlm.assets.root() / "data" / "samples" / "city_at_night.mp4"
    assert len(model.caption([clip], max_tokens=2)) == 1


def test_positions_are_rounded_as_they_were_trained() -> None:
    assert position_of_patch(32).tolist() == list(range(32 * 32))
    assert position_of_patch(27).tolist() == list(range(27 * 27))
    assert position_of_patch(25).tolist() != list(range(25 * 25)), "some shares of 25 round across an edge"


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (13, "thirteen"), (20, "twenty"), (64, "sixty-four"), (100, "one hundred"),
     (101, "one hundred and one"), (342, "three hundred and forty-two"), (1000, "1000")],
)  # fmt: skip
def test_numbers_in_words(number: int, words: str) -> None:
    assert number_words(number) == words


# Files as transformers 4 wrote them


def test_the_processors_files_of_the_published_models(tmp_path: Path) -> None:
    smolvlm.write_folder(tmp_path)
    expected = vlm.load(tmp_path).processor
    whole = json.loads((tmp_path / "processor_config.json").read_text())
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 48}}
    old = whole["image_processor"] | {"video_sampling": sampling}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_len": whole["image_seq_len"]}))
    ours = vlm.load(tmp_path).processor
    clip = Clip([picture(40, 30)], [0.0], "clip")
    for messages, images in [([said("image")], [picture(50, 70)]), ([said("video")], [clip])]:
        assert torch.equal(ours(messages, images).pixels, expected(messages, images).pixels)
