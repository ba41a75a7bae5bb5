"""`/v1/responses` as OpenAI's own client asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from chatting import HELLO, WORDS, Script, chatting, data_url, openai_client
from serving import error

from vlm.errors import BadInput
from vlm.facade import Model

openai = pytest.importorskip("openai", reason="openai is not installed (pip: vlm[dev])")
ORDER = [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    *["response.output_text.delta"] * len(WORDS), "response.output_text.done", "response.content_part.done",
    "response.output_item.done", "response.completed",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Script:
    return Script()


@pytest.fixture(scope="module")
def plain(tiny_model: Model, engine: Script) -> Iterator[httpx.Client]:
    with chatting(tiny_model, engine) as client:
        yield client


@pytest.fixture(scope="module")
def client(plain: httpx.Client) -> Iterator[Any]:
    with openai_client(plain) as found:
        yield found


def test_a_response(client: Any, engine: Script, tiny_model: Model) -> None:
    answer = client.responses.create(
        model="tiny", input="hello", instructions="Be brief.", max_output_tokens=9, metadata={"a": "b"}
    )
    assert (answer.output_text, answer.status, answer.object) == ("A red square.", "completed", "response")
    assert (answer.metadata, answer.max_output_tokens, answer.temperature) == ({"a": "b"}, 9, 0.0)
    assert answer.usage.output_tokens == len(WORDS)
    assert answer.usage.total_tokens == answer.usage.input_tokens + len(WORDS)
    assert answer.usage.input_tokens_details.cached_tokens == 3
    said = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert engine.asked[-1].prompt.ids == tiny_model.processor.read(said).ids
    assert engine.asked[-1].max_tokens == 9


def test_a_stream_has_openai_s_events_in_their_order(client: Any) -> None:
    events = list(client.responses.create(model="tiny", input="hello", stream=True))
    assert [event.type for event in events] == ORDER
    assert [event.sequence_number for event in events] == list(range(len(ORDER)))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == list(WORDS)
    done = {event.type: event for event in events}
    assert done["response.output_text.done"].text == "A red square."
    assert done["response.content_part.done"].part.text == "A red square."
    assert done["response.output_item.done"].item.content[0].text == "A red square."
    whole = done["response.completed"].response
    assert (whole.output_text, whole.status) == ("A red square.", "completed")
    assert whole.usage.output_tokens == len(WORDS)
    assert done["response.created"].response.status == "in_progress"
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {whole.output[0].id}


def test_each_event_is_named_on_the_wire(plain: httpx.Client) -> None:
    answer = plain.post("/v1/responses", json={"model": "tiny", "input": "hello", "stream": True})
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names == ORDER


def test_the_client_s_own_stream_is_followed(client: Any) -> None:
    with client.responses.stream(model="tiny", input="hello") as stream:
        assert stream.get_final_response().output_text == "A red square."


def test_a_conversation_with_a_picture_goes_on(client: Any, engine: Script) -> None:
    """The output of one is input of the next, as it came."""
    asked: list[Any] = [{"role": "user", "content": [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": data_url(), "detail": "auto"},
    ]}]  # fmt: skip
    first = client.responses.create(model="tiny", input=asked)
    assert first.usage.model_dump()["media"][0]["size"] == [64, 64]  # every picture, by this tower
    asked += first.output
    second = client.responses.create(model="tiny", input=[*asked, {"role": "user", "content": "And now?"}])
    assert second.output_text == "A red square."
    ids, (item,) = engine.asked[-1].prompt.ids, engine.asked[-1].prompt.media
    assert len(ids) > len(engine.asked[-2].prompt.ids)
    assert item.frames[0].size == (64, 64)


def test_chances_of_tokens(client: Any) -> None:
    include = ["message.output_text.logprobs"]
    answer = client.responses.create(model="tiny", input="hello", include=include, top_logprobs=2)
    chances = answer.output[0].content[0].logprobs
    assert [len(chance.top_logprobs) for chance in chances] == [2] * len(WORDS)
    events = list(client.responses.create(model="tiny", input="hello", include=include, stream=True))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [delta.logprobs[0].logprob for delta in deltas] == [-0.5] * len(WORDS)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"previous_response_id": "resp-1"}, "previous_response_id: expected nothing: this server keeps nothing"),
        ({"conversation": "c"}, "conversation: "),
        ({"background": True}, "background: "),
        ({"truncation": "auto"}, "truncation: "),
        ({"tools": [{"type": "web_search"}]}, "tools: "),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort: "),
        ({"text": {"verbosity": "low"}}, "text.verbosity: "),
        ({"top_logprobs": 2}, "top_logprobs: "),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input.0"),
    ],
)
def test_what_it_cannot_do_is_refused(plain: httpx.Client, fields: dict[str, Any], told: str) -> None:
    refused = plain.post("/v1/responses", json={"model": "tiny", "input": "hello", **fields})
    assert error(refused) == (422, "invalid")
    assert told in refused.json()["error"]["message"], refused.text


def test_what_changes_nothing_is_taken(client: Any) -> None:
    answer = client.responses.create(
        model="tiny", input="hello", store=True, user="me", truncation="disabled", background=False, tools=[],
        parallel_tool_calls=True, service_tier="auto", text={"format": {"type": "text"}}, prompt_cache_key="k",
    )  # fmt: skip
    assert (answer.status, answer.store) == ("completed", False)


def test_one_that_length_ended_is_incomplete(tiny_model: Model) -> None:
    with chatting(tiny_model, Script(finish="length")) as plain, openai_client(plain) as client:
        answer = client.responses.create(model="tiny", input="hello")
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        events = list(client.responses.create(model="tiny", input="hello", stream=True))
        assert [event.type for event in events] == [*ORDER[:-1], "response.incomplete"]
        assert events[-1].response.output[0].status == "incomplete"


def test_one_that_fails(tiny_model: Model) -> None:
    with chatting(tiny_model, Script(fails=BadInput("no"))) as plain, openai_client(plain) as client:
        with pytest.raises(openai.BadRequestError, match="no"):
            client.responses.create(model="tiny", input="hello")
        events = list(client.responses.create(model="tiny", input="hello", stream=True))
        assert [event.type for event in events] == [*ORDER[:4], "response.failed"]
        assert (events[-1].response.status, events[-1].response.error.message) == ("failed", "no")
    full = Script(full=True)
    with (
        chatting(tiny_model, full) as plain,
        openai_client(plain) as client,
        pytest.raises(openai.RateLimitError),
    ):
        client.responses.create(model="tiny", input="hello", stream=True)
