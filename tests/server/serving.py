"""Servers to test: in a thread of this process, or as a process that can be killed."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.types import ASGIApp

from vlm.server.embedding.embedder import Colours, Embedder
from vlm.server.http.app import Failed
from vlm.server.http.auth import Keys
from vlm.server.http.serving import Server, configured
from vlm.server.http.settings import Limits, Settings
from vlm.server.retrieval.app import create_app

REPOSITORY = Path(__file__).resolve().parents[2]
CLIP = REPOSITORY / "data" / "samples" / "city_at_night.mp4"
VLM = "import sys; from vlm.cli import main; sys.exit(main())"


@contextmanager
def running(app: Callable[[Failed], ASGIApp], limits: Limits) -> Iterator[httpx.Client]:
    """A client of an application on a free port of this machine, ready."""
    troubles: list[BaseException] = []
    server = Server(configured(app(troubles.append), limits, "127.0.0.1", 0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait(lambda: server.address)
        expiry = httpx.Limits(keepalive_expiry=limits.header_seconds / 2)  # not at the moment the server closes it
        with httpx.Client(base_url=server.address, timeout=60, limits=expiry) as client:
            wait(lambda: troubles or ready(client), 120)
            assert not troubles, troubles
            yield client
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def served(
    settings: Settings,
    *loads: Callable[[], Embedder],
    keys: Keys | None = None,
) -> Iterator[httpx.Client]:
    """A client of a retrieval server; of `colours` where no model is said."""
    with running(lambda failed: create_app(settings, loads or [Colours], keys, failed), settings.limits) as client:
        yield client


class ServingProcess:
    """`vlm serve` with these words, and without a page."""

    started: ClassVar[list[ServingProcess]] = []

    def __init__(self, kind: str, *words: str) -> None:
        command = [sys.executable, "-c", VLM, "serve", kind, "--port", "0", "--no-page", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.started.append(self)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "serving on" in line, line + self.process.stderr.read()
        self.client = httpx.Client(base_url=line.split()[-1], timeout=60)
        wait(lambda: ready(self.client), 120)

    def end(self, number: int = signal.SIGTERM) -> int:
        os.kill(self.process.pid, number)
        self.client.close()
        code = self.process.wait(120)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class ServerProcess(ServingProcess):
    """`vlm serve retrieval` with these options."""

    def __init__(self, root: Path, *options: str, model: str = "colours") -> None:
        super().__init__("retrieval", "--model", model, "--root", str(root), *options)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:  # an idle connection was closed while the model was being imported
        return False


def wait(what: Callable[[], Any], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def picture(colour: Any = "red", size: tuple[int, int] = (24, 16), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def unit(*numbers: float) -> list[float]:
    """A vector of the colours' space that begins with these."""
    row = np.pad(np.array(numbers, float), (0, Colours.width - len(numbers)))
    return (row / np.linalg.norm(row)).tolist()


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose form is the one that every error has."""
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message"}, body
    assert "\n" not in body["error"]["message"]
    return answer.status_code, body["error"]["code"]


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def raw(client: httpx.Client, data: bytes) -> bytes:
    """What comes back for bytes as they are."""
    import socket

    address = client.base_url
    with socket.create_connection((address.host, address.port), timeout=10) as sock:
        sock.sendall(data)
        out = b""
        while chunk := sock.recv(65536):
            out += chunk
        return out


def as_shown(page: Path, client: httpx.Client) -> int:
    """Send the requests that a page of the documents shows to this server, none of which fails: their number."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lines = re.findall(r"^curl .*$", page.read_text(encoding="utf-8"), flags=re.M)
    for line in lines:
        words = shlex.split(line.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/")))
        if "--json" in words:  # older ones than 7.82 do not have it
            words[words.index("--json")] = "--data"
            words += ["--header", "Content-Type: application/json"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=True)
        answer = json.loads(done.stdout)
        assert answer.get("error") is None, (line, answer)
    return len(lines)


def as_json(value: Any) -> dict[str, Any]:
    """Content that httpx would refuse to write, such as NaN."""
    return {"content": json.dumps(value), "headers": {"Content-Type": "application/json"}}
