"""`/v1/chat/completions` as OpenAI's own client asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chatting import HELLO, WORDS, Script, ask, chatting, data_url, openai_client, showing
from serving import CLIP, error, picture

from vlm.errors import BadInput
from vlm.facade import Model
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.http.auth import Keys

openai = pytest.importorskip("openai", reason="openai is not installed (pip: vlm[dev])")
KEY = "k" * 20


@pytest.fixture(scope="module")
def engine() -> Script:
    return Script()


@pytest.fixture(scope="module")
def plain(tiny_model: Model, engine: Script, media: Path) -> Iterator[httpx.Client]:
    settings = ChatSettings(media=(media,), limits=ChatLimits(choices=4))
    with chatting(tiny_model, engine, settings, Keys({KEY: "read"})) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.fixture(scope="module")
def client(plain: httpx.Client) -> Iterator[Any]:
    with openai_client(plain, KEY) as found:
        yield found


def test_a_reply(client: Any, engine: Script) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO)
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("A red square.", "assistant", "stop")
    assert (answer.object, answer.model, choice.logprobs) == ("chat.completion", "tiny", None)
    request = engine.asked[-1]
    assert answer.usage.prompt_tokens == len(request.prompt.ids)
    assert answer.usage.completion_tokens == len(WORDS)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(WORDS)
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert (request.sampling.temperature, request.n, request.stop, request.constraint) == (0.0, 1, (), None)
    assert request.max_tokens == 256 - len(request.prompt.ids)  # what the model still reads
    assert request.client


def test_the_whole_conversation_is_asked(client: Any, engine: Script, tiny_model: Model) -> None:
    """An answer may be sent back as the client gives it."""
    first = client.chat.completions.create(model="tiny", messages=HELLO)
    messages = [
        {"role": "developer", "content": "Be brief."}, *HELLO, first.choices[0].message,
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
    ]  # fmt: skip
    client.chat.completions.create(model="tiny", messages=messages)
    said = [
        {"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "A red square."},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
    ]  # fmt: skip
    assert engine.asked[-1].prompt.ids == tiny_model.processor.read(said).ids


def test_a_stream(client: Any) -> None:
    stream = client.chat.completions.create(
        model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks[:-2]] == ["", *WORDS]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(WORDS)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    without = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
    assert "usage" not in without[0].model_dump(exclude_unset=True)
    assert len(without) == len(chunks) - 1


def test_a_stream_on_the_wire(plain: httpx.Client) -> None:
    answer = ask(plain, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    lines = answer.text.strip().split("\n\n")
    assert all(line.startswith("data: {") for line in lines[:-1])
    assert lines[-1] == "data: [DONE]"


def test_several_choices(client: Any, engine: Script) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, n=3)
    assert [(one.index, one.message.content) for one in answer.choices] == [(n, "A red square.") for n in range(3)]
    assert engine.asked[-1].sampling.temperature == 1.0  # several of the likeliest would be the same
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(model="tiny", messages=HELLO, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["A red square."] * 3
    with pytest.raises(openai.UnprocessableEntityError, match="n: expected at most 4, got 5"):
        client.chat.completions.create(model="tiny", messages=HELLO, n=5)


def test_how_tokens_are_chosen(client: Any, engine: Script) -> None:
    client.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0.7, top_p=0.9, seed=5, presence_penalty=0.5, frequency_penalty=-0.5,
        logit_bias={"42": -100}, stop=["\n", "END"], max_completion_tokens=7,
        extra_body={"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.2},
    )  # fmt: skip
    request = engine.asked[-1]
    found = request.sampling
    assert (found.temperature, found.top_p, found.top_k, found.min_p, found.seed) == (0.7, 0.9, 40, 0.05, 5)
    assert (found.presence_penalty, found.frequency_penalty, found.repetition_penalty) == (0.5, -0.5, 1.2)
    assert (dict(found.bias), request.stop, request.max_tokens) == ({42: -100.0}, ("\n", "END"), 7)
    client.chat.completions.create(model="tiny", messages=HELLO, top_p=0.9, extra_body={"top_k": -1})
    assert (engine.asked[-1].sampling.temperature, engine.asked[-1].sampling.top_k) == (1.0, None)
    client.chat.completions.create(model="tiny", messages=HELLO, top_p=0.9, temperature=0, stop="x")
    assert (engine.asked[-1].sampling.temperature, engine.asked[-1].stop) == (0.0, ("x",))


def test_chances_of_tokens(client: Any, tiny_model: Model) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert [token.logprob for token in tokens] == [-0.5] * len(WORDS)
    decode = tiny_model.processor.tokenizer.decode
    assert [token.token for token in tokens] == [decode([70 + n]) for n in range(len(WORDS))]
    assert bytes(tokens[0].bytes).decode() == tokens[0].token
    assert [(top.token, top.logprob) for top in tokens[0].top_logprobs] == [(decode([71]), -1.0), (decode([72]), -2.0)]
    stream = client.chat.completions.create(model="tiny", messages=HELLO, logprobs=True, stream=True)
    said = [chunk.choices[0].logprobs for chunk in stream]
    assert [token.logprob for one in said if one for token in one.content] == [-0.5] * len(WORDS)


def test_pictures_and_clips(client: Any, engine: Script, media: Path) -> None:
    (media / "red.png").write_bytes(picture("red", (40, 30)))
    (media / "city.mp4").write_bytes(CLIP.read_bytes())
    content = [
        {"type": "image_url", "image_url": {"url": "red.png"}},
        {"type": "image_url", "image_url": {"url": data_url(picture("blue", (20, 20), "JPEG"), "image/jpeg")}},
        {"type": "video_url", "video_url": {"url": "city.mp4"}},
        {"type": "text", "text": "What?"},
    ]
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], extra_body={"max_frames": 3}
    )
    shown = engine.asked[-1].prompt.media
    assert [item.frames[0].size for item in shown] == [(64, 64)] * 3  # every picture, by this tower
    assert shown[0].frames[0].getpixel((5, 5)) == (255, 0, 0)
    assert len(shown[2].frames) == 3
    seen = answer.usage.model_dump()["media"]
    assert [(one["kind"], one["size"][:2], one["frames"], one["image_tokens"]) for one in seen] == [
        ("image", [64, 64], 1, 4), ("image", [64, 64], 1, 4), ("video", [64, 64], 3, 12),
    ]  # fmt: skip
    assert seen[2]["times"] == [pytest.approx(time, abs=1e-3) for time in shown[2].times]
    assert answer.usage.prompt_tokens_details.image_tokens == 3
    by_rate = {"fps": 1, "max_frames": 8}
    client.chat.completions.create(
        model="tiny", messages=showing("city.mp4", kind="video_url"), extra_body=by_rate, max_tokens=1
    )
    (clip,) = engine.asked[-1].prompt.media
    assert clip.duration is not None
    assert len(clip.frames) == min(8, round(clip.duration))


def test_the_same_picture_is_opened_once(client: Any, engine: Script) -> None:
    """As a conversation that is sent again with each turn has it."""
    client.chat.completions.create(model="tiny", messages=[*showing(data_url()), *showing(data_url())])
    one, other = engine.asked[-1].prompt.media
    assert one is other


def test_errors_are_the_client_s_exceptions(client: Any, tiny_model: Model) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="unknown model 'gpt-9'") as refused:
        create(model="gpt-9", messages=HELLO)
    assert error(refused.value.response) == (404, "model_not_found")
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="other").chat.completions.create(model="tiny", messages=HELLO)
    with pytest.raises(openai.PermissionDeniedError, match="fetches no URLs"):
        create(model="tiny", messages=showing("https://example.com/a.png"))
    with pytest.raises(openai.BadRequestError, match="expected an image"):
        create(model="tiny", messages=showing(data_url(b"no picture")))
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        create(model="tiny", messages=HELLO, temperature=3)


def test_a_full_engine_says_when_to_come_again(tiny_model: Model) -> None:
    with chatting(tiny_model, Script(full=True)) as plain:
        for stream in (False, True):
            refused = ask(plain, stream=stream)
            assert error(refused) == (429, "busy")
            assert refused.headers["retry-after"] == "7"
        with openai_client(plain) as client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="tiny", messages=HELLO)


def test_a_request_that_fails_while_it_is_answered(tiny_model: Model) -> None:
    """Before the answer it is a status, after its beginning an event that the client raises."""
    for fault, status in ((BadInput("a picture that cannot be read"), 400), (RuntimeError("secret"), 500)):
        with chatting(tiny_model, Script(fails=fault)) as plain:
            refused = ask(plain)
            assert refused.status_code == status
            assert "secret" not in refused.text
            told = "cannot be read" if status == 400 else "the model failed"
            with openai_client(plain) as client, pytest.raises(openai.APIError, match=told):
                list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))


def test_a_reply_that_time_or_length_ended_says_so(tiny_model: Model) -> None:
    for finish, stop_reason in (("length", None), ("deadline", "deadline")):
        with chatting(tiny_model, Script(finish=finish)) as plain:
            (choice,) = ask(plain).json()["choices"]
            assert (choice["finish_reason"], choice["stop_reason"]) == ("length", stop_reason)
            assert f'"stop_reason": "{stop_reason}"' in ask(plain, stream=True).text or stop_reason is None


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("owner/other")
