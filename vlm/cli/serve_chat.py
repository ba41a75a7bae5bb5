"""`vlm serve chat`: conversations about pictures and clips over HTTP, as OpenAI's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlm.cli.options import Device, Dtype, ModelName, Offline
from vlm.cli.output import say
from vlm.cli.serve import app, common, with_page
from vlm.cli.serve_options import (
    AccessLog,
    BodyMb,
    Cors,
    Draft,
    Host,
    KeysFile,
    MaxSessions,
    MaxTokens,
    MediaFolders,
    MemoryMb,
    Page,
    Port,
    ReplyDeadline,
    Running,
    ServedTemperatures,
    SessionsFolder,
    SessionsMb,
    Urls,
    Waiting,
)  # fmt: skip
from vlm.errors import VlmError

if TYPE_CHECKING:
    from vlm.engine.settings import EngineSettings
    from vlm.server.chat.loaded import Loaded


@app.command("chat", epilog="\b\nExample:\n  vlm serve chat --model nano --media photos/")
def chat(
    model: ModelName = "nano",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: KeysFile = None,
    media: MediaFolders = None,
    urls: Urls = False,
    page: Page = True,
    cors: Cors = None,
    max_tokens: MaxTokens = 256,
    running: Running = 16,
    waiting: Waiting = 256,
    memory_mb: MemoryMb = 2048,
    body_mb: BodyMb = 64,
    deadline: ReplyDeadline = 600.0,
    draft: Draft = None,
    temperatures: ServedTemperatures = None,
    sessions: SessionsFolder = None,
    max_sessions: MaxSessions = 100,
    sessions_mb: SessionsMb = 4096,
    access_log: AccessLog = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Serve a model that writes: OpenAI's chat completions and responses, captions and answers, over HTTP, and a page.

    Without --keys only this machine is served. Ctrl-C or SIGTERM ends it, once what was accepted is finished.
    """
    try:
        from vlm.server.chat.run import serve as run
        from vlm.server.chat.settings import ChatLimits, ChatSettings
        from vlm.server.http.auth import read_keys
        from vlm.server.http.settings import MB
    except ModuleNotFoundError as error:
        raise VlmError(f"the server needs {error.name} (pip: vlm[serve])") from None
    from vlm.engine.settings import EngineSettings

    engine = EngineSettings(memory_bytes=memory_mb * MB, running=running, waiting=waiting)
    loaded = loading(model, engine, temperatures, offline, device, dtype, draft=draft, embeds=False)
    settings = ChatSettings(
        **common(media, urls and not offline, cors, access_log),
        page=with_page(page),
        max_tokens=max_tokens,
        sessions=sessions.resolve() if sessions else None,
        limits=ChatLimits(
            body_bytes=body_mb * MB,
            json_bytes=body_mb * MB,
            reply_seconds=deadline,
            sessions=max_sessions,
            sessions_bytes=sessions_mb * MB,
        ),
    )
    run(settings, loaded, host=host, port=port, keys=read_keys(keys) if keys else None, say=say)


def loading(
    model: str, engine: EngineSettings, temperatures: Path | None, offline: bool, device: str, dtype: str, *,
    draft: str | None, embeds: bool,
) -> Callable[[], Loaded]:  # fmt: skip
    """What loads the model that writes, once, with its vectors where it has some; or where `embeds`, in any case.

    `draft` is the model that guesses for it. Raises `BadInput` at once where there is no such model or device, and when
    it loads for one that cannot do it.
    """
    from vlm.cli.session import lazy_model, space_of
    from vlm.server.chat.loaded import load

    chosen = lazy_model(model, offline, device=device, dtype=dtype, multi_token=True)
    guessing = None if draft is None else lazy_model(draft, offline, device=device, dtype=dtype)

    def loaded() -> Loaded:
        found = chosen()
        space = space_of(model) if embeds or "embeds" in found.can else None
        return load(found, engine, temperatures, space, None if guessing is None else guessing())

    return loaded
