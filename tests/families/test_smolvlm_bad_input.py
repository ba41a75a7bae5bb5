"""SmolVLM folders and inputs that cannot be used: one line that says what, where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_smolvlm as smolvlm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vlm
from vlm.errors import BadInput
from vlm.media.video.sampling import Clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    smolvlm.write_folder(tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        vlm.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_that_do_not_fit(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")

    def tried(**changes: torch.Tensor | None) -> str:
        state = whole | {name.replace("__", "."): tensor for name, tensor in changes.items()}
        save_file({name: t for name, t in state.items() if t is not None}, folder / "model.safetensors")
        return refused(folder)

    layer = "model__vision_model__encoder__layers__1__"
    assert "1 missing: model.vision_model.encoder.layers.1.self_attn.k_proj.bias [24]" in tried(
        **{f"{layer}self_attn__k_proj__bias": None}
    )
    assert "self_attn.q_proj.weight expected [24, 24], got [2, 24]" in tried(
        **{f"{layer}self_attn__q_proj__weight": torch.zeros(2, 24)}
    )
    assert "1 unknown: model.vision_model.head [3]" in tried(model__vision_model__head=torch.zeros(3))
    assert "1 missing: model.text_model.norm.weight [32]" in tried(model__text_model__norm__weight=None)
    assert "1 missing: lm_head.weight" in tried(lm_head__weight=None)
    assert "1 unknown: other [1]" in tried(other=torch.zeros(1))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config", {"scale_factor": 4}, "key scale_factor: projector factor 4 does not divide"),
        ("config", {"image_token_id": 9}, "key image_token_id: 9, but the tokenizer has 4"),
        ("config", {"vision_config": smolvlm.VISION | {"hidden_act": "gelu"}}, "key vision_config.hidden_act"),
        ("config", {"vision_config": smolvlm.VISION | {"layer_norm_eps": 1e-5}}, "layer_norm_eps: expected 1e-06"),
        ("config", {"text_config": {"model_type": "lama"}}, "unknown language model family 'lama'"),
        ("processor_config", {"image_seq_len": 8}, "key image_seq_len: expected 9"),
        ("processor_config", {"image_processor": {"max_image_size": {"longest_edge": 32}}}, "key max_image_size"),
    ],
)
def test_configs_that_cannot_be_followed(folder: Path, file: str, change: dict[str, Any], words: str) -> None:
    path = folder / f"{file}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert words in refused(folder)


def test_messages_and_pictures_that_do_not_fit(folder: Path) -> None:
    processor = vlm.load(folder).processor
    for messages, pictures, words in [
        ([smolvlm.said("image")], 0, "expected places for 0 pictures and clips, got 1"),
        ([smolvlm.said("image")], 2, "expected places for 2 pictures and clips, got 1"),
        ([smolvlm.said("a", role="tool")], 0, "message 1: expected role user, assistant or system, got 'tool'"),
        ([smolvlm.said("see <image>")], 0, "expected a part of type image where a picture stands"),
        ([{"role": "user", "content": [{"type": "audio"}]}], 0, "got 'audio'"),
        ([{"role": "user", "content": 3}], 0, "expected a text or a list of parts as content, got int"),
    ]:
        with pytest.raises(BadInput) as caught:
            processor(messages, [Image.new("RGB", (30, 30))] * pictures)
        assert words in str(caught.value)
    with pytest.raises(BadInput, match="expected a clip of at least one frame"):
        processor([smolvlm.said("video")], [Clip([], [], "empty.mp4")])
