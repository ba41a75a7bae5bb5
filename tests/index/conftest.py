"""The engines, each as functions: make an index, open it again, drop it."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vlm.index import create_index, drop_index, open_index, there
from vlm.index.base import Index


@dataclass
class Engine:
    """`make()` an index of width 8 and model "m"; `again(snapshot=..., ...)` opens it anew."""

    name: str
    make: Callable[[], Index]
    again: Callable[..., Index]
    drop: Callable[[], None]
    there: Callable[[], bool]


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="session")
def object_storage() -> Iterator[dict[str, str]]:
    """An S3 server on loopback with a bucket; LanceDB's options for it."""
    need("lancedb")
    need("moto")
    need("flask")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="photographs")
    yield {"endpoint": url, "region": "us-east-1", "allow_http": "true", **keys}
    server.stop()


def folder_engine(name: str, folder: Path) -> Engine:
    return Engine(
        name,
        lambda: create_index(folder, 8, "m", engine=name),
        lambda **how: open_index(folder, **how),
        lambda: drop_index(folder),
        lambda: there(folder),
    )


@pytest.fixture(params=["flat", "lance", "lance partitioned", "qdrant", "s3"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    kind: str = request.param
    if kind == "flat":
        return folder_engine(kind, tmp_path / "i")
    if kind == "qdrant":
        need("qdrant_client")
        import qdrant_client

        client: Any = qdrant_client.QdrantClient(":memory:")
        # The client's local mode stands in for a server.
        request.getfixturevalue("monkeypatch").setattr(qdrant_client, "QdrantClient", lambda **how: client)
        place = "http://127.0.0.1:6333/photos"
        return Engine(
            kind,
            lambda: create_index(place, 8, "m"),
            lambda **how: open_index(place, **how),
            lambda: drop_index(place),
            lambda: there(place),
        )
    need("lancedb")
    if kind == "lance":
        return folder_engine(kind, tmp_path / "i")
    if kind == "s3":
        storage, place = request.getfixturevalue("object_storage"), f"s3://photographs/{uuid.uuid4().hex}"
        return Engine(
            kind,
            lambda: create_index(place, 8, "m", options=storage),
            lambda **how: open_index(place, options=storage, **how),
            lambda: drop_index(place, options=storage),
            lambda: there(place, options=storage),
        )
    from vlm.index.lance import LanceIndex

    # Nothing is held in memory: LanceDB itself answers.
    return Engine(
        kind,
        lambda: LanceIndex.create(tmp_path / "i", 8, "m", exact_limit=-1),
        lambda **how: LanceIndex.open(tmp_path / "i", exact_limit=-1, **how),
        lambda: drop_index(tmp_path / "i"),
        lambda: there(tmp_path / "i"),
    )
