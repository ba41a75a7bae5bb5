"""`/v1/embeddings` as OpenAI's own client asks for it, and LangChain's through that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from serving import error, served

from vlm.server.embedding.embedder import Colours
from vlm.server.http.auth import Keys
from vlm.server.http.settings import Limits, Settings

openai = pytest.importorskip("openai", reason="openai is not installed (pip: vlm[dev])")
KEY = "k" * 20


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    limits = Limits(batch=8, inputs=100, queue=8)
    settings = Settings(root=tmp_path_factory.mktemp("root"), limits=limits)
    with served(settings, keys=Keys({KEY: "read"})) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.fixture(scope="module")
def client(plain: httpx.Client) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{plain.base_url}".rstrip("/") + "/v1", api_key=KEY, max_retries=0) as found:
        yield found


def test_texts_one_or_many_in_either_form(client: Any) -> None:
    """The client asks for base64 where it is told nothing."""
    expected = Colours().embed_texts(["red", "a blue wall"])
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"user": "somebody"}):
        answer = client.embeddings.create(model="colours", input=["red", "a blue wall"], **options)
        rows = [one.embedding for one in answer.data]
        if options.get("encoding_format") == "base64" and isinstance(rows[0], str):
            continue  # the client leaves what it was asked for explicitly as it came
        np.testing.assert_allclose(np.array(rows, np.float32), expected, rtol=1e-6)
        assert [one.index for one in answer.data] == [0, 1]
        assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("colours", 4, 4)
    one = client.embeddings.create(model="colours", input="red", dimensions=16)
    cut = expected[0][:16] / np.linalg.norm(expected[0][:16])
    np.testing.assert_allclose(one.data[0].embedding, cut, rtol=1e-6)


def test_more_than_a_batch_in_one_request(client: Any, plain: httpx.Client) -> None:
    """More than may wait at once, too: LangChain sends a thousand."""
    texts = [f"red {number}" for number in range(100)]
    answer = client.embeddings.create(model="colours", input=texts)
    np.testing.assert_allclose([one.embedding for one in answer.data], Colours().embed_texts(texts), rtol=1e-6)
    with pytest.raises(openai.APIStatusError, match="expected at most 100, got 101"):
        client.embeddings.create(model="colours", input=[*texts, "one more"])
    rows = plain.post("/v1/embeddings", json={"input": texts}).json()["data"]
    assert [row["index"] for row in rows] == list(range(100))


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]], ids=["one", "several"])
def test_tokens_of_another_tokenizer_are_refused_with_what_to_do(client: Any, tokens: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=r"check_embedding_ctx_length=False") as refused:
        client.embeddings.create(model="colours", input=tokens)
    assert error(refused.value.response) == (422, "invalid")


def test_another_model_and_another_key_are_told(client: Any, plain: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError, match="colours"):
        client.embeddings.create(model="text-embedding-ada-002", input="red")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="other").embeddings.create(model="colours", input="red")
