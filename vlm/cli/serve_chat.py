"""`vlm serve chat`: conversations about pictures and clips over HTTP, as OpenAI's clients ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm.cli.options import Device, Dtype, ModelName, Offline
from vlm.cli.output import say
from vlm.cli.serve import app, origin
from vlm.errors import VlmError


@app.command("chat", epilog="\b\nExample:\n  vlm serve chat --model nano --media photos/")
def chat(
    model: ModelName = "nano",
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes one that is free.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="Lines of `read KEY` or `write KEY`; both may ask.")
    ] = None,
    media: Annotated[
        list[Path] | None, typer.Option("--media", metavar="DIR", help="A folder whose files can be named by path.")
    ] = None,
    urls: Annotated[bool, typer.Option("--urls", help="Fetch URLs, from public addresses alone.")] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="https://app.example: a web page whose scripts may use the API."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, metavar="N", help="Of a reply that says nothing of its length.")
    ] = 256,
    running: Annotated[
        int, typer.Option("--running", min=1, metavar="N", help="Replies written at the same time.")
    ] = 16,
    waiting: Annotated[
        int, typer.Option("--waiting", min=1, metavar="N", help="Replies that wait for that; more are refused.")
    ] = 256,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=1, metavar="N", help="For the keys and values of all conversations.")
    ] = 2048,
    body_mb: Annotated[int, typer.Option("--body-mb", min=1, metavar="N", help="The largest request.")] = 64,
    deadline: Annotated[
        float, typer.Option("--deadline", min=0.1, metavar="SECONDS", help="After which a reply ends as it is.")
    ] = 600.0,
    temperatures: Annotated[
        Path | None,
        typer.Option("--temperatures", metavar="FILE", help="A decision.json of `vlm calibrate`, for /v1/decisions."),
    ] = None,
    access_log: Annotated[
        Path | None, typer.Option("--access-log", metavar="FILE", help="A line of JSON for each request.")
    ] = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Serve a model that writes: OpenAI's chat completions and responses, captions and answers, over HTTP.

    Without --keys only this machine is served. Ctrl-C or SIGTERM ends it, once what was accepted is finished.
    """
    try:
        from vlm.server.chat.loaded import Loaded, load
        from vlm.server.chat.run import serve as run
        from vlm.server.chat.settings import ChatLimits, ChatSettings
        from vlm.server.http.auth import read_keys
        from vlm.server.http.settings import MB
    except ModuleNotFoundError as error:
        raise VlmError(f"the server needs {error.name} (pip: vlm[serve])") from None
    from vlm.cli.session import lazy_model, space_of
    from vlm.engine.settings import EngineSettings

    chosen = lazy_model(model, offline, device=device, dtype=dtype)
    engine = EngineSettings(memory_bytes=memory_mb * MB, running=running, waiting=waiting)

    def loaded() -> Loaded:
        found = chosen()
        return load(found, engine, temperatures, space_of(model) if "embeds" in found.can else None)

    settings = ChatSettings(
        media=tuple(path.resolve() for path in media or ()),
        urls=urls and not offline,
        origins=tuple(map(origin, cors or ())),
        access_log=access_log,
        max_tokens=max_tokens,
        limits=ChatLimits(body_bytes=body_mb * MB, json_bytes=body_mb * MB, reply_seconds=deadline),
    )
    run(settings, loaded, host=host, port=port, keys=read_keys(keys) if keys else None, say=say)
