"""LLaVA-OneVision folders and inputs that cannot be used: one line that says what, where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_llava_onevision as onevision
import torch
from PIL import Image
from random_llava_onevision import VISION, said
from safetensors.torch import load_file, save_file

import vlm
from vlm.errors import BadInput
from vlm.media.video.sampling import Clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onevision.write_folder(tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        vlm.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_that_do_not_fit(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")

    def tried(name: str, tensor: torch.Tensor | None) -> str:
        state = {**whole, name: tensor}
        save_file({key: value for key, value in state.items() if value is not None}, folder / "model.safetensors")
        return refused(folder)

    attention = "vision_tower.encoder.layers.2.self_attn"
    assert f"1 missing: {attention}.k_proj.bias [24]" in tried(f"{attention}.k_proj.bias", None)
    assert f"{attention}.q_proj.weight expected [24, 24], got [2, 24]" in tried(
        f"{attention}.q_proj.weight", torch.zeros(2, 24)
    )
    assert "1 missing: image_newline [32]" in tried("image_newline", None)
    assert "multi_modal_projector.linear_2.weight expected [32, 32], got [32, 8]" in tried(
        "multi_modal_projector.linear_2.weight", torch.zeros(32, 8)
    )
    assert "1 missing: language_model.model.norm.weight [32]" in tried("language_model.model.norm.weight", None)
    assert "1 unknown: language_model.model.other [1]" in tried("language_model.model.other", torch.zeros(1))
    assert "1 unknown: other [1]" in tried("other", torch.zeros(1))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config", {"image_token_index": 9}, "key image_token_index: 9, but the tokenizer has 3"),
        ("config", {"vision_feature_layer": -4}, "key vision_feature_layer: expected a layer, -3 to 3, got -4"),
        ("config", {"vision_feature_layer": [-1, -2]}, "key vision_feature_layer"),
        ("config", {"vision_feature_select_strategy": "default"}, "key vision_feature_select_strategy"),
        ("config", {"vision_aspect_ratio": "pad"}, "key vision_aspect_ratio"),
        ("config", {"projector_hidden_act": "silu"}, "key projector_hidden_act"),
        ("config", {"image_grid_pinpoints": [[28, 30]]}, "[28, 30] is not a multiple of image_size 28"),
        ("config", {"image_grid_pinpoints": [[28, 28]]}, "key image_processor.image_grid_pinpoints"),
        ("config", {"vision_config": VISION | {"model_type": "clip_vision_model"}}, "key vision_config.model_type"),
        ("config", {"text_config": {"model_type": "quen"}}, "unknown language model family 'quen'"),
        ("processor_config", {"num_image_tokens": 8}, "key num_image_tokens: expected 49"),
        ("processor_config", {"vision_aspect_ratio": "anyres_max_9"}, "key vision_aspect_ratio: expected anyres_max_4"),
        ("processor_config", {"video_processor": {}}, "key video_processor.size: expected height=28 width=28"),
    ],
)
def test_configs_that_cannot_be_followed(folder: Path, file: str, change: dict[str, Any], words: str) -> None:
    path = folder / f"{file}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert words in refused(folder)


def test_a_folder_without_a_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert "expected a chat template" in refused(folder)


def test_messages_and_pictures_that_do_not_fit(folder: Path) -> None:
    processor = vlm.load(folder).processor
    photo, clip = Image.new("RGB", (30, 30)), Clip([Image.new("RGB", (30, 30))], [0.0], "clip.mp4")
    for messages, seen, words in [
        ([said("image")], [], "expected places for 0 pictures and clips, got 1"),
        ([said("image")], [photo, photo], "expected places for 2 pictures and clips, got 1"),
        ([said("image")], [clip], "expected what a part of type image shows at place 1, got one of video"),
        ([said("a", role="tool")], [], "message 1: expected role user, assistant or system, got 'tool'"),
        ([said("see <video>")], [], "expected a part of type video where a clip stands"),
        ([said("video")], [Clip([], [], "empty.mp4")], "empty.mp4: expected a clip of at least one frame"),
    ]:
        with pytest.raises(BadInput) as caught:
            processor(messages, seen)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "the chat template cannot be filled: roles must alternate"),
        ("{% for", "the chat template cannot be filled"),
        ("{{ messages[0]['content'][0]['text'] }}", "expected as many <image> as parts of type image, got 1 places"),
        ("{{ messages.append(1) }}", "the chat template cannot be filled"),
    ],
)
def test_templates_that_cannot_be_used(folder: Path, template: str, words: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(BadInput) as caught:
        vlm.load(folder).processor([said("image", "?")], [Image.new("RGB", (30, 30))])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_grids_that_say_nothing(folder: Path) -> None:
    model = vlm.load(folder)
    ids, pixels, _ = model.processor([said("image")], [Image.new("RGB", (30, 30))])
    for grid in [(0, 4), (-1, 3)]:
        with pytest.raises(BadInput, match="grids: expected a picture's"):
            model.logits(ids, pixels, [grid])
