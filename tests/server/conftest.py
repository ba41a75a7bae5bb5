from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vlm.facade import Model

pytest.importorskip("fastapi", reason="fastapi is not installed (pip: vlm[serve])")
httpx = pytest.importorskip("httpx", reason="httpx is not installed (pip: vlm[dev])")

from serving import ServingProcess, picture, served  # noqa: E402

from vlm.server.http.settings import Limits, Settings  # noqa: E402


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No server outlives its test."""
    yield
    while ServingProcess.started:
        ServingProcess.started.pop().process.kill()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files may be named."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Iterator[httpx.Client]:
    """Of a server with small limits and an empty collection `c`."""
    limits = Limits(
        body_bytes=4 * 2**20, json_bytes=2**20, image_bytes=2**20, video_bytes=2 * 2**20, batch=8, top=20,
        header_seconds=1, silence_seconds=1, pixels=1_000_000,
    )  # fmt: skip
    settings = Settings(root=tmp_path_factory.mktemp("root"), media=(media,), limits=limits)
    with served(settings) as found:
        yield found


@pytest.fixture
def c(client: httpx.Client) -> Iterator[str]:
    """The address of an empty collection."""
    assert client.post("/v1/collections", json={"name": "c"}).status_code == 201
    yield "/v1/collections/c"
    assert client.delete("/v1/collections/c").status_code == 200


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small card's model of random weights."""
    import chatting

    return chatting.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A picture's file."""
    (tmp_path / "red.png").write_bytes(picture("red", (640, 480)))
    return tmp_path / "red.png"
