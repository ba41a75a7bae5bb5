"""The chat server in front of the real engine: what a model says over HTTP is what it says without."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from chatting import CHAT, HELLO, ask, chatting, data_url, showing
from PIL import Image
from serving import CLIP, error, picture, wait

from vlm.conversation.messages import Conversation, question
from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
from vlm.evaluation.endpoint.client import EndpointOptions
from vlm.evaluation.endpoint.model import EndpointModel
from vlm.facade import Model
from vlm.media.open import open_media
from vlm.server.http.auth import Keys

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))  # small models of every kind
import kinds


@pytest.fixture(scope="module")
def engine(tiny_model: Model) -> Iterator[Engine]:
    made = Engine(tiny_model.model, tiny_model.processor, EngineSettings(running=4)).start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(tiny_model: Model, engine: Engine) -> Iterator[httpx.Client]:
    with chatting(tiny_model, engine) as found:
        yield found


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def streamed(answer: httpx.Response) -> str:
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def noise(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def conversation(content: bytes) -> list[dict[str, object]]:
    return showing(data_url(content), "What is it?")


@pytest.mark.parametrize("kind", ["a card", "SmolVLM", "LLaVA-OneVision", "DeepSeek-VL2"])
def test_many_at_once_each_say_what_the_model_says_alone(kind: str, tmp_path: Path) -> None:
    """Whole and streamed, to the last character."""
    model = kinds.load(kind, tmp_path / "model")
    pictures = [noise(seed) for seed in range(5)]
    parts = [[{"type": "image", "image": one}, {"type": "text", "text": "What is it?"}] for one in pictures]
    alone = [
        "".join(model.chat([{"role": "user", "content": content}], max_tokens=12, stream=True)) for content in parts
    ]
    assert len(set(alone)) > 1
    engine = Engine(model.model, model.processor, EngineSettings(running=4)).start()
    with chatting(model, engine) as client, ThreadPoolExecutor(10) as threads:
        asked = [partial(ask, client, messages=conversation(one), max_tokens=12) for one in pictures]
        whole = [threads.submit(one) for one in asked]
        pieces = [threads.submit(one, stream=True) for one in asked]
        assert [text_of(one.result()) for one in whole] == alone
        assert [streamed(one.result()) for one in pieces] == alone
    engine.close()


def test_captions_and_answers_are_those_of_the_commands(client: httpx.Client, tiny_model: Model) -> None:
    files = {"file": ("a.png", picture("blue"))}
    assert client.post("/caption", files=files).json()["caption"] == tiny_model.caption([picture("blue")])[0]
    question = "Is there a dog in the picture?"
    answer = client.post("/vqa", files=files, data={"question": question}).json()["answer"]
    assert answer == tiny_model.answer([picture("blue")], [question])[0]
    clip = client.post("/caption", files={"file": ("a.mp4", CLIP.read_bytes())}).json()["caption"]
    assert clip == tiny_model.caption([CLIP])[0]


def test_what_it_cost(client: httpx.Client, tiny_model: Model) -> None:
    """A conversation that was asked before is read again only behind its last picture."""
    messages = conversation(noise(9))
    first, second = (ask(client, messages=messages, max_tokens=5).json()["usage"] for _ in range(2))
    prompt = tiny_model.processor.prompt(
        tiny_model.processor.user_messages("What is it?", open_media(picture())), [open_media(picture())]
    )
    assert first["prompt_tokens"] == second["prompt_tokens"] == len(prompt.ids)
    assert first["prompt_tokens_details"]["image_tokens"] == first["media"][0]["image_tokens"] == 4
    assert first["completion_tokens"] <= 5
    assert first["total_tokens"] == first["prompt_tokens"] + first["completion_tokens"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert 4 <= second["prompt_tokens_details"]["cached_tokens"] < len(prompt.ids)


def test_chances_are_the_model_s(client: httpx.Client, tiny_model: Model) -> None:
    answer = ask(client, max_tokens=1, logprobs=True, top_logprobs=5).json()
    (token,) = answer["choices"][0]["logprobs"]["content"]
    ids = tiny_model.processor.read(HELLO).ids
    best = torch.log_softmax(tiny_model.logits(torch.tensor([ids]))[0, -1].float(), -1).topk(5)
    assert [top["logprob"] for top in token["top_logprobs"]] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert token["logprob"] == pytest.approx(float(best.values[0]), abs=1e-4)
    decode = tiny_model.processor.tokenizer.decode
    assert [top["token"] for top in token["top_logprobs"]] == [decode([int(n)], control=True) for n in best.indices]
    assert sum(math.exp(top["logprob"]) for top in token["top_logprobs"]) <= 1


def test_seeds_stops_and_biases(client: httpx.Client, tiny_model: Model) -> None:
    hot = {"temperature": 1.5, "max_tokens": 12}
    once, again, other = (text_of(ask(client, seed=seed, **hot)) for seed in (1, 1, 2))
    assert once == again != other
    choices = ask(client, n=3, seed=1, **hot).json()["choices"]
    assert len({choice["message"]["content"] for choice in choices}) > 1
    whole = text_of(ask(client, max_tokens=12))
    stop = whole[3:6]
    cut = ask(client, max_tokens=12, stop=stop).json()["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(stop)]
    assert cut["finish_reason"] == "stop"
    wanted = tiny_model.processor.tokenizer.encode("x")[0]
    said = ask(client, max_tokens=3, logit_bias={str(wanted): 100}).json()["choices"][0]
    assert (said["message"]["content"], said["finish_reason"]) == ("xxx", "length")


def test_what_is_too_long_is_refused_before_it_begins(client: httpx.Client) -> None:
    long = [{"role": "user", "content": "word " * 300}]
    for stream in (False, True):
        assert error(ask(client, messages=long, stream=stream)) == (400, "bad_input")
    assert error(ask(client, max_tokens=1000)) == (400, "bad_input")
    assert error(ask(client, logit_bias={"320": 1})) == (400, "bad_input")


def test_replies_that_are_bound(client: httpx.Client) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed (pip: vlm[serve])")
    assert text_of(ask(client, guided_choice=["blue", "reddish"], max_tokens=20)) in ("blue", "reddish")
    assert set(text_of(ask(client, guided_regex="[ab]{4}", max_tokens=20))) <= set("ab")
    assert text_of(ask(client, guided_grammar='start: "x" "y"', max_tokens=20)) == "xy"
    schema = {"type": "object", "properties": {"a": {"enum": ["red"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(text_of(ask(client, response_format=named, max_tokens=100))) == {"a": "red"}
    for bad in ({"guided_regex": "("}, {"guided_grammar": "start: nothing"}, {"guided_choice": []}):
        assert error(ask(client, **bad))[0] in (400, 422)


def test_a_reader_that_goes_away_frees_the_engine(tiny_model: Model) -> None:
    engine = Engine(tiny_model.model, tiny_model.processor, EngineSettings(running=1)).start()
    with chatting(tiny_model, engine) as client:
        body = {"messages": HELLO, "stream": True, "max_tokens": 200, "logit_bias": {"70": 100}}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        wait(lambda: b"vlm_replies_running 0.0" in client.get("/metrics").content, 5)
        before = engine.nbytes
        assert text_of(ask(client, max_tokens=2)) is not None  # the one place is free again
        assert engine.nbytes <= before + 2**20
        kinds = client.get("/metrics").text
        assert 'vlm_choices_total{finish="length"} 1.0' in kinds or 'vlm_choices_total{finish="stop"} 1.0' in kinds
    engine.close()


def test_metrics_say_what_is_held_and_nothing_is_once_nobody_asks(tiny_model: Model) -> None:
    engine = Engine(tiny_model.model, tiny_model.processor, EngineSettings(running=1)).start()

    def figure(name: str) -> float:
        (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"vlm_engine_{name} ")]
        return float(line.split()[1])

    with chatting(tiny_model, engine) as client, ThreadPoolExecutor(2) as threads:
        body = {"max_tokens": 200, "logit_bias": {"70": 100}}
        asked = [threads.submit(partial(ask, client, **body)) for _ in range(2)]
        wait(lambda: figure('replies{state="running"}') == figure('replies{state="waiting"}') == 1, 10)
        wait(lambda: figure('bytes{of="reply"}') > 0, 10)
        assert [one.result().status_code for one in asked] == [200, 200]
        wait(lambda: figure('replies{state="running"}') == figure('bytes{of="reply"}') == 0, 10)
        assert figure('replies{state="waiting"}') == 0
        assert figure('bytes{of="prompt"}') > 0  # what is kept of the prompts, within its bound
    engine.close()


def test_the_harness_hears_over_http_what_it_hears_from_the_model(client: httpx.Client, tiny_model: Model) -> None:
    """`vlm eval --model http://.../v1` measures a model that is served as the model itself."""
    asked = [Conversation(tuple(question("What is it?")), (open_media(noise(seed)),)) for seed in range(4)]
    endpoint = EndpointModel.at(f"{client.base_url}".rstrip("/") + "/v1", None, EndpointOptions(retries=0))
    assert endpoint.name == "tiny"
    said = endpoint.replies(asked, max_tokens=10)
    assert [text.strip() for text in said] == tiny_model.replies(asked, max_tokens=10)
    endpoint.endpoint.close()


def test_callers_of_different_keys_share_nothing(tiny_model: Model) -> None:
    """Else one could learn, by what is cached, what another asked."""
    engine = Engine(tiny_model.model, tiny_model.processor, EngineSettings()).start()
    ours, theirs = "o" * 20, "t" * 20
    with chatting(tiny_model, engine, keys=Keys({ours: "read", theirs: "write"})) as client:

        def cached(key: str) -> int:
            body = {"messages": conversation(noise(1)), "max_tokens": 2}
            answer = client.post(CHAT, json=body, headers={"Authorization": f"Bearer {key}"})
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert cached(ours) == 0
        assert cached(ours) > 0
        assert cached(theirs) == 0
    engine.close()


def test_a_language_model_alone_is_served_and_takes_no_picture(tmp_path: Path) -> None:
    model = kinds.load("a language model", tmp_path / "model")
    engine = Engine(model.model, model.processor, EngineSettings()).start()
    with chatting(model, engine) as client:
        alone = "".join(model.chat(HELLO, max_tokens=8, stream=True))
        assert text_of(ask(client, max_tokens=8)) == streamed(ask(client, max_tokens=8, stream=True)) == alone
        assert error(ask(client, messages=conversation(noise(1)))) == (400, "bad_input")
    engine.close()


def test_a_decision_about_a_picture_that_was_shown_encodes_nothing(client: httpx.Client, engine: Engine) -> None:
    shown = data_url(noise(77))
    body = {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": shown}]}],
        "questions": [{"type": "predicate", "instructions": "Is it red?"}],
    }
    before = engine.pictures.encoded
    first = client.post("/v1/decisions", json=body).json()
    picture = engine.pictures.encoded - before
    assert picture > 0
    assert text_of(ask(client, messages=showing(shown), max_tokens=2)) is not None
    assert client.post("/v1/decisions", json=body).json() == first
    assert engine.pictures.encoded == before + picture
    body["input"] = [{"role": "user", "content": [{"type": "input_image", "image_url": data_url(noise(78))}]}]
    assert client.post("/v1/decisions", json=body).json() != first
    assert engine.pictures.encoded == before + 2 * picture
