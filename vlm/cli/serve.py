"""`vlm serve`: what answers over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from vlm.cli.options import Device, Dtype, Offline
from vlm.cli.output import say
from vlm.cli.serve_options import (
    AccessLog,
    AuditLog,
    BodyMb,
    Cors,
    Host,
    IndexEngine,
    KeepOriginals,
    KeysFile,
    MediaFolders,
    Opened,
    Page,
    Port,
    Root,
    Store,
    Urls,
    Wait,
)  # fmt: skip
from vlm.errors import BadInput, VlmError, unknown

app = typer.Typer(help="Serve a model over HTTP.", rich_markup_mode=None)


@app.callback()
def serve() -> None:  # without it a single command would take the place of the group
    """Serve a model over HTTP."""


@app.command("retrieval", epilog="\b\nExample:\n  vlm serve retrieval --model nano --root service --media photos/")
def retrieval(
    root: Root,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="NAME",
            help="A model of `vlm models`, or `colours`, which needs none; may be repeated, the first is the default.",
        ),
    ] = ["nano"],  # noqa: B006
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
    body_mb: BodyMb = 256,
    deadline: Annotated[
        float, typer.Option("--deadline", min=0.1, metavar="SECONDS", help="For a batch that the model has begun.")
    ] = 60.0,
    wait: Wait = 120.0,
    access_log: AccessLog = None,
    audit_log: AuditLog = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Serve collections of pictures, clips and texts: add items, search them, over HTTP and on a page.

    Without --keys only this machine is served. Ctrl-C or SIGTERM ends it, once what was accepted is finished.
    """
    try:
        from vlm.server.embedding.embedder import EMBEDDERS, loaded
        from vlm.server.http.auth import read_keys
        from vlm.server.http.settings import MB, Limits, Settings
        from vlm.server.retrieval.run import serve as run
    except ModuleNotFoundError as error:
        raise VlmError(f"the server needs {error.name} (pip: vlm[serve])") from None
    from vlm.cli.session import check_model

    for name in model:
        if name not in EMBEDDERS:
            check_model(name)
        if model.count(name) > 1:
            raise BadInput(f"--model {name}: expected each model once")
    loads = [partial(loaded, name, offline, device, dtype) for name in model]
    kept = collections(root, opened, keep_originals, engine, store, page)
    asked = common(media, urls and not offline, cors, access_log, audit_log)
    limits = Limits(body_bytes=body_mb * MB, answer_seconds=deadline, wait_seconds=wait)
    settings = Settings(**kept, **asked, limits=limits)
    run(settings, loads, host=host, port=port, keys=read_keys(keys) if keys else None, say=say)


def common(
    media: Sequence[Path] | None, urls: bool, cors: Sequence[str] | None, access_log: Path | None,
    audit_log: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What settings of any server say of their options. Raises `BadInput`."""
    return {
        "media": tuple(path.resolve() for path in media or ()), "urls": urls,
        "origins": tuple(map(_origin, cors or ())), "access_log": access_log, "audit_log": audit_log,
    }  # fmt: skip


def collections(
    root: Path, opened: Sequence[str] | None, originals: bool, engine: str, store: str | None, page: bool
) -> dict[str, Any]:
    """What settings say of collections. Raises `BadInput`; a page that cannot be served is told, and left out."""
    from vlm.index import is_folder
    from vlm.server.http.settings import ENGINES

    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if store is not None and is_folder(store):
        raise BadInput(f"--index {store}: expected s3://bucket/prefix or http://host:port, got a folder")
    return {
        "root": root.resolve(), "opened": _named(opened or ()), "originals": originals, "engine": engine,
        "store": store, "page": with_page(page),
    }  # fmt: skip


def with_page(wanted: bool) -> bool:
    """Whether there can be a page; says so where one is wanted and cannot be."""
    if wanted and find_spec("gradio") is None:
        say("no page: it needs gradio (pip: vlm[page])")
        return False
    return wanted


def _origin(text: str) -> str:
    """As browsers write it. Raises `BadInput`."""
    found = urlsplit(text)
    origin = f"{found.scheme}://{found.netloc}".lower()
    if found.scheme not in ("http", "https") or not found.hostname or text.rstrip("/").lower() != origin:
        raise BadInput(f"--cors {text}: expected an origin like https://app.example, with its port if it names one")
    return origin


def _named(texts: Sequence[str]) -> dict[str, Path]:
    """Folders by the names of their collections. Raises `BadInput`."""
    from vlm.server.retrieval.collections import NAME

    found: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not NAME.fullmatch(name) or not folder:
            raise BadInput(f"--open {text}: expected NAME=FOLDER, the name of letters, digits, - and _")
        if name.lower() in map(str.lower, found):
            raise BadInput(f"--open {text}: expected another name for each index")
        found[name] = Path(folder).resolve()
    return found
