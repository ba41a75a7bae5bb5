"""`vlm serve all`: conversations and collections of one model, on one port."""

from __future__ import annotations

from vlm.cli.options import Device, Dtype, ModelName, Offline
from vlm.cli.output import say
from vlm.cli.serve import app, collections, common
from vlm.cli.serve_chat import loading
from vlm.cli.serve_options import (
    AccessLog,
    AuditLog,
    BodyMb,
    Cors,
    Draft,
    Host,
    IndexEngine,
    KeepOriginals,
    KeysFile,
    MaxSessions,
    MaxTokens,
    MediaFolders,
    MemoryMb,
    Opened,
    Page,
    Port,
    ReplyDeadline,
    Root,
    Running,
    ServedTemperatures,
    SessionsFolder,
    SessionsMb,
    Store,
    Urls,
    Wait,
    Waiting,
)  # fmt: skip
from vlm.errors import VlmError


@app.command("all", epilog="\b\nExample:\n  vlm serve all --model nano --root service --media photos/")
def all_(
    root: Root,
    model: ModelName = "nano",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: KeysFile = None,
    keep_originals: KeepOriginals = False,
    media: MediaFolders = None,
    opened: Opened = None,
    urls: Urls = False,
    page: Page = True,
    engine: IndexEngine = "lance",
    store: Store = None,
    cors: Cors = None,
    max_tokens: MaxTokens = 256,
    running: Running = 16,
    waiting: Waiting = 256,
    memory_mb: MemoryMb = 2048,
    body_mb: BodyMb = 256,
    deadline: ReplyDeadline = 600.0,
    wait: Wait = 120.0,
    draft: Draft = None,
    temperatures: ServedTemperatures = None,
    sessions: SessionsFolder = None,
    max_sessions: MaxSessions = 100,
    sessions_mb: SessionsMb = 4096,
    access_log: AccessLog = None,
    audit_log: AuditLog = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Serve both on one port: what `vlm serve retrieval` and `vlm serve chat` serve, of a model that is loaded once.

    It has to write and to embed, like nano. Without --keys only this machine is served. Ctrl-C or SIGTERM ends it, once
    what was accepted is finished.
    """
    try:
        from vlm.server.chat.settings import ChatLimits
        from vlm.server.combined import CombinedSettings
        from vlm.server.combined import serve as run
        from vlm.server.http.auth import read_keys
        from vlm.server.http.settings import MB
    except ModuleNotFoundError as error:
        raise VlmError(f"the server needs {error.name} (pip: vlm[serve])") from None
    from vlm.engine.settings import EngineSettings

    replies = EngineSettings(memory_bytes=memory_mb * MB, running=running, waiting=waiting)
    loaded = loading(model, replies, temperatures, offline, device, dtype, draft=draft, embeds=True)
    settings = CombinedSettings(
        **collections(root, opened, keep_originals, engine, store, page),
        **common(media, urls and not offline, cors, access_log, audit_log),
        max_tokens=max_tokens,
        sessions=sessions.resolve() if sessions else None,
        limits=ChatLimits(
            body_bytes=body_mb * MB,
            reply_seconds=deadline,
            wait_seconds=wait,
            sessions=max_sessions,
            sessions_bytes=sessions_mb * MB,
        ),
    )
    run(settings, loaded, host=host, port=port, keys=read_keys(keys) if keys else None, say=say)
