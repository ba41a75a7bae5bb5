"""OpenAI's chat completions over HTTP, answered by a function of the test."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image
from squares import COLORS

from vlm.evaluation.endpoint.client import EndpointOptions
from vlm.evaluation.run import Options

Answer = Callable[[dict[str, Any]], "str | tuple[int, dict[str, str], Any]"]
"""From a request's body to the reply's text, or to a status, headers and a body."""


ROWS = [
    {"color": color, "question": f"What color is {i}?", "answers": [color]}
    for i, color in enumerate(list(COLORS) * 4)
]  # fmt: skip


class ChatServer:
    def __init__(self, answer: Answer, models: tuple[str, ...] = ("small",)) -> None:
        self.answer, self.models = answer, models
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.url = ""

    @contextmanager
    def running(self, port: int = 0) -> Iterator[ChatServer]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.give(200, {}, {"data": [{"id": name} for name in outer.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                try:
                    said = outer.answer(body)
                finally:
                    with outer.lock:
                        outer.under_way -= 1
                if self.path != "/v1/chat/completions":
                    said = (404, {}, {"error": {"message": f"no {self.path}"}})
                self.give(*(said if isinstance(said, tuple) else (200, {}, completion(said))))

            def give(self, status: int, headers: dict[str, str], content: Any) -> None:
                raw = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that has gone

        server = Quiet(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    """Ten tokens read, and as many written as the text has words."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def shown(body: dict[str, Any]) -> list[str]:
    """The `data:` URLs of a request's last message."""
    content = body["messages"][-1]["content"]
    return [] if isinstance(content, str) else [p["image_url"]["url"] for p in content if p["type"] == "image_url"]


def words(body: dict[str, Any]) -> str:
    """The text of a request's last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")


def pictures(body: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in shown(body)]


def color(body: dict[str, Any]) -> str:
    pixel = pictures(body)[0].getpixel((0, 0))
    return min(COLORS, key=lambda name: sum(abs(a - b) for a, b in zip(pixel, COLORS[name], strict=True)))  # type: ignore[arg-type]


def options(folder: Path, **more: Any) -> Options:
    return Options(str(folder / "data"), output=folder / "run", **{"endpoint": EndpointOptions(4, 2, 30.0), **more})
