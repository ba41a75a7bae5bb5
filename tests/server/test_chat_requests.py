"""What a request may say: what changes nothing is taken, what would change the answer and cannot is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chatting import CHAT, HELLO, Script, ask, chatting, data_url, loaded, showing
from serving import CLIP, as_json, error, picture

from vlm.facade import Model
from vlm.server.chat.settings import ChatLimits, ChatSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))  # small models of every kind
import kinds


@pytest.fixture(scope="module")
def engine() -> Script:
    return Script()


@pytest.fixture(scope="module")
def client(tiny_model: Model, engine: Script) -> Iterator[httpx.Client]:
    limits = ChatLimits(characters=2000, media=3, frames=6)
    with chatting(tiny_model, engine, ChatSettings(limits=limits)) as found:
        yield found


TAKEN = {
    "user": "me", "metadata": {"a": "b"}, "store": True, "safety_identifier": "x", "service_tier": "auto",
    "parallel_tool_calls": True, "prompt_cache_key": "k", "prompt_cache_retention": "24h", "tools": [],
    "tool_choice": "none", "modalities": ["text"], "reasoning_effort": None, "stream_options": None, "n": 1,
    "response_format": {"type": "text"}, "functions": None, "audio": None, "logit_bias": {}, "stop": None,
}  # fmt: skip


def test_what_changes_nothing_is_taken(client: httpx.Client) -> None:
    assert ask(client, **TAKEN).status_code == 200
    assert client.post(CHAT, json={"messages": HELLO}).json()["model"] == "tiny"


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tools": [TOOL]}, "tools: expected []: this server calls no tools"),
        ({"tool_choice": "required"}, "tool_choice: expected 'none', 'auto': this server calls no tools"),
        ({"functions": [TOOL["function"]]}, "functions: "),
        ({"modalities": ["text", "audio"]}, "modalities: "),
        ({"audio": {"voice": "x"}}, "audio: "),
        ({"reasoning_effort": "high"}, "reasoning_effort: "),
        ({"verbosity": "low"}, "verbosity: "),
        ({"prediction": {"type": "content", "content": "a"}}, "prediction: "),
        ({"web_search_options": {}}, "web_search_options: "),
        ({"temperatur": 1}, "did you mean 'temperature'"),
        ({"temperature": "1"}, "temperature: "),
        ({"temperature": -0.1}, "temperature: "),
        ({"top_p": 0}, "top_p: "),
        ({"top_k": -2}, "top_k: "),
        ({"top_logprobs": 3}, "expected logprobs beside it"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: "),
        ({"stream_options": {"include_usage": True}}, "expected stream beside it"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "expected one of max_tokens and max_completion_tokens"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"logit_bias": {"a": 1}}, "logit_bias: expected tokens by their numbers"),
        ({"logit_bias": {"1": 101}}, "logit_bias: expected numbers of -100 to 100"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": 2**63}, "seed: "),
        ({"n": 0}, "n: "),
        ({"guided_choice": ["a"], "guided_regex": "a"}, "one constraint of the reply, got guided_choice, guided_regex"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex, response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "json_schema: "),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"fps": 2}, "fps: expected a clip among the messages"),
        ({"max_pixels": 9}, "max_pixels: expected a picture among the messages"),
        ({"min_pixels": 9, "max_pixels": 8}, "min_pixels: expected at most max_pixels 8, got 9"),
    ],
)  # fmt: skip
def test_what_is_refused_in_one_line(client: httpx.Client, engine: Script, fields: dict[str, Any], told: str) -> None:
    before = len(engine.asked)
    refused = ask(client, **fields)
    assert error(refused) == (422, "invalid")
    assert told in refused.json()["error"]["message"], refused.text
    assert len(engine.asked) == before


USER = {"role": "user"}


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([], 422),
        ("hello", 422),
        ([{"role": "tool", "content": "x"}], 422),
        ([{"role": "user", "content": "x", "name": "me"}], 422),
        ([{"role": "assistant", "content": None, "tool_calls": [TOOL]}, *HELLO], 422),
        ([USER | {"content": [{"type": "input_audio", "input_audio": {"data": ""}}]}], 422),
        ([USER | {"content": [{"type": "text"}]}], 422),
        ([USER | {"content": [{"type": "image_url", "text": "a"}]}], 422),
        ([USER | {"content": [{"type": "image_url", "image_url": {"url": 5}}]}], 422),
        ([USER | {"content": [{"type": "image_url", "image_url": {"url": "a", "detail": "huge"}}]}], 422),
        ([USER | {"content": [{"type": "video_url", "video_url": {"url": "a", "detail": "low"}}]}], 422),
        ([USER | {"content": [{"type": "input_image", "file_id": "file-1"}]}], 422),
        ([USER | {"content": "a <image> in a text"}], 400),
        ([USER | {"content": "\ud800"}], 422),
        ([USER | {"content": "a" * 2001}], 413),
        (showing(data_url()) * 4, 413),
    ],
)
def test_messages_that_are_none(client: httpx.Client, engine: Script, messages: Any, status: int) -> None:
    before = len(engine.asked)
    refused = client.post(CHAT, **as_json({"model": "tiny", "messages": messages}))
    assert error(refused)[0] == status, refused.text
    assert len(engine.asked) == before


def test_parts_by_all_their_names(client: httpx.Client, engine: Script) -> None:
    url, clip = data_url(), data_url(CLIP.read_bytes(), "video/mp4")
    content = [
        {"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "image", "image": url}, {"type": "video", "video": clip}, {"type": "output_text", "text": "b"},
    ]  # fmt: skip
    answer = ask(client, messages=[{"role": "user", "content": content}], max_frames=2)
    assert answer.status_code == 200, answer.text
    assert [item.is_clip for item in engine.asked[-1].prompt.media] == [False, False, True]
    assert [one["kind"] for one in answer.json()["usage"]["media"]] == ["image", "image", "video"]


def test_a_clip_is_bounded(client: httpx.Client) -> None:
    clip = showing(data_url(CLIP.read_bytes(), "video/mp4"), kind="video_url")
    assert error(ask(client, messages=clip, max_frames=7)) == (413, "too_large")
    assert len(ask(client, messages=clip, fps=100).json()["usage"]["media"][0]["times"]) == 6
    assert error(ask(client, messages=showing(data_url(CLIP.read_bytes(), "video/mp4")))) == (400, "bad_input")
    assert error(ask(client, messages=showing(data_url(), kind="video_url"))) == (400, "bad_input")


def test_what_a_picture_lost_is_told(client: httpx.Client) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    (seen,) = ask(client, messages=showing(data_url(out.getvalue(), "image/gif"))).json()["usage"]["media"]
    assert seen["notes"] == ["several frames, the first one is used"]


def test_pixels_where_the_model_counts_them_and_where_not(client: httpx.Client, engine: Script, tmp_path: Path) -> None:
    large = showing(data_url(picture("red", (900, 600))))
    for fields in ({"max_pixels": 10_000}, {"min_pixels": 10}):
        told = ask(client, messages=large, **fields)
        assert error(told) == (400, "bad_input")
        assert "model tiny sees it in as many tokens whatever its pixels" in told.text
    low = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(), "detail": "low"}}]}]
    assert error(ask(client, messages=low)) == (400, "bad_input")
    tiled, other = kinds.load("DeepSeek-VL2", tmp_path / "vl2"), Script()
    with chatting(tiled, other) as found:
        whole = ask(found, messages=large).json()["usage"]["media"][0]
        assert whole["size"] == [900, 600]
        small = ask(found, messages=large, max_pixels=10_000).json()["usage"]["media"][0]
        assert small["size"] == [122, 81]  # 900 x 600 at the largest scale of at most so many
        assert small["image_tokens"] <= whole["image_tokens"]
        assert other.asked[-1].prompt.media[0].frames[0].size == (122, 81)
        raised = ask(found, messages=showing(data_url(picture("red", (30, 20)))), min_pixels=2400).json()
        assert raised["usage"]["media"][0]["size"] == [60, 40]


def test_what_the_server_takes_is_told(client: httpx.Client, tiny_model: Model) -> None:
    told = client.get("/v1/limits").json()
    assert (told["context"], told["media"], told["frames"], told["urls"]) == (256, 3, 6, False)
    assert told["context"] == loaded(tiny_model, None).context
