"""Conversations: turns, pictures and clips, a system turn, streaming; OpenAI's shape and our marks."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
import torch
from PIL import Image

from vlm.conversation.messages import Part, read_messages
from vlm.errors import BadInput
from vlm.facade import Model


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (50, 70, 3), np.uint8))


A, B = noise(1), noise(2)


def data_url(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


@pytest.fixture(scope="module", params=["a card", "SmolVLM", "LLaVA-OneVision", "DeepSeek-VL2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        model = kinds.load(request.param, folder / "model")
    if request.param == "a card":  # its random weights say one byte for ever
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def test_both_shapes_are_the_same_conversation(model: Model, tmp_path: Path) -> None:
    A.save(tmp_path / "a.png")
    marked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>What is it?"},
        {"role": "assistant", "content": "A square."},
        {"role": "user", "content": "And <image> here?"},
    ]
    shapes: list[list[dict[str, Any]]] = []
    for first, second in (
        ({"type": "image_url", "image_url": {"url": data_url(A)}}, {"type": "image_url", "image_url": data_url(B)}),
        ({"type": "image", "image": str(tmp_path / "a.png")}, {"type": "image", "image": B}),
    ):
        shapes.append(
            [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [first, {"type": "text", "text": "What is it?"}]},
                {"role": "assistant", "content": "A square."},
                {"role": "user", "content": [
                    {"type": "input_text", "text": "And "}, second, {"type": "text", "text": " here?"}
                ]},
            ]
        )  # fmt: skip
    expected = model.chat(marked, [A, B], max_tokens=6)
    for shape in shapes:
        assert model.chat(shape, max_tokens=6) == expected
        assert model.count(shape).total == model.count(marked, [A, B]).total


def test_a_stream_is_the_reply(model: Model) -> None:
    said = [{"role": "user", "content": "<image>What is it?"}]
    pieces = list(model.chat(said, [A], stream=True, max_tokens=12))
    assert len(pieces) > 1
    assert "".join(pieces).strip() == model.chat(said, [A], max_tokens=12)


def test_every_turn_and_picture_counts(model: Model) -> None:
    once = [{"role": "user", "content": "<image>What?"}]
    twice = [*once, {"role": "assistant", "content": "A dog."}, {"role": "user", "content": "Sure?"}]
    first, second = model.count(once, [A]), model.count(twice, [A])
    assert second.visual == first.visual > 0
    assert second.prompt > first.prompt
    replies = {model.chat(once, [image], max_tokens=12) for image in (A, B, noise(3), noise(4))}
    assert len(replies) > 1, "another picture, another reply"


def test_text_alone(model: Model) -> None:
    said = [{"role": "user", "content": "Hello"}]
    assert model.count(said).pictures == ()
    assert isinstance(model.chat(said, max_tokens=3), str)


@pytest.mark.parametrize(
    ("messages", "images", "words"),
    [
        ([{"role": "user", "content": "caf\udce9"}], [], "message 1: expected a text, got half a character at 3"),
        ([], [], "messages: expected a list of messages, got an empty list"),
        ("hello", [], "messages: expected a list of messages, got str"),
        (["hello"], [], "message 1: expected an object with a role and a content, got str"),
        ([{"role": "user", "content": "<image>"}], [], "expected places for 0 pictures and clips, got 1"),
        ([{"role": "user", "content": "hi"}], [A], "expected places for 1 pictures and clips, got 0"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png,abc"}]}], [], "message 1: "),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,@@"}]}], [], "base64"),
        ([{"role": "user", "content": [{"type": "image", "image": "/no/such.png"}]}], [], "/no/such.png"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], [], "expected a text in a part of type text"),
        ([{"role": "robot", "content": "hi"}], [], "got 'robot'"),
    ],
)
def test_what_is_no_conversation_is_one_line(model: Model, messages: Any, images: list[Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        model.chat(messages, images)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_conversation_that_is_too_long_is_refused_before_it_runs(model: Model) -> None:
    room = model.model.language.cfg.context
    with pytest.raises(BadInput, match=f"the language model reads at most {room}"):
        model.chat([{"role": "user", "content": "why " * room}])


def test_parts_are_read_in_order() -> None:
    said, media = read_messages([{"role": "user", "content": "a<image>b<image>"}], ["one", "two"])
    assert said[0].parts == (Part("text", "a"), Part("image"), Part("text", "b"), Part("image"))
    assert media == ("one", "two")
    mixed = [{"role": "user", "content": [{"type": "image"}, {"type": "image", "image": "own"}, {"type": "image"}]}]
    assert read_messages(mixed, ["one", "two"]).media == ("one", "own", "two")


def test_beams(model: Model) -> None:
    """Alone and beside others the same, and one beam is the usual way."""
    both = model.caption([A, B], max_tokens=6, beams=4)
    assert both == [model.caption([one], max_tokens=6, beams=4)[0] for one in (A, B)]
    assert model.caption([A], max_tokens=6, beams=1) == model.caption([A], max_tokens=6)
    with pytest.raises(BadInput, match="beams: expected 1 to 32, got 40"):
        model.caption([A], beams=40)
