"""The chat service that anybody would write in an hour, to measure ours against where transformers cannot load a model:
FastAPI around the plain loop, one reply at a time.

It remembers nothing, refuses nothing and bounds nothing. `python -m vlm.bench.naive_chat MODEL PORT`.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image

import vlm
from vlm.engine.greedy import stream


def app_of(name: str) -> FastAPI:
    model = vlm.load(name, offline=True)
    writer, app, turn = model.writer, FastAPI(), threading.Lock()
    if writer is None:
        raise SystemExit(f"model {name} does not write")

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/v1/chat/completions")
    def completion(body: dict[str, Any]) -> StreamingResponse:
        """Streamed, whatever was asked; a reply goes on to `max_tokens`."""

        def lines() -> Iterator[str]:
            with turn:
                prompt = writer.processor.read(_opened(body["messages"]))
                with torch.inference_mode():
                    ids_1T = torch.tensor([prompt.ids])
                    media = zip(prompt.media, prompt.layouts, strict=True)
                    seen = [tokens for item, layout in media for tokens in writer.visual(item, layout)]
                    x_1TD = writer.model.embed(ids_1T, seen)
                said: list[int] = []
                text = ""
                for _, token in stream(writer.model.language, [x_1TD[0]], stop=(), max_tokens=body["max_tokens"]):
                    said.append(token)
                    new = writer.processor.decode(said)
                    yield _event(new[len(text) :], None, len(said))
                    text = new
                yield _event("", "length", len(said))

        return StreamingResponse(lines(), media_type="text/event-stream")

    return app


def _opened(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def part(one: dict[str, Any]) -> dict[str, Any]:
        if one["type"] != "image_url":
            return one
        content = base64.b64decode(one["image_url"]["url"].partition(",")[2])
        return {"type": "image", "image": Image.open(io.BytesIO(content)).convert("RGB")}

    return [{**message, "content": [part(one) for one in message["content"]]} for message in messages]


def _event(text: str, finish: str | None, tokens: int) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': tokens}})}\n\n"


if __name__ == "__main__":
    uvicorn.run(app_of(sys.argv[1]), port=int(sys.argv[2]), log_level="error")
