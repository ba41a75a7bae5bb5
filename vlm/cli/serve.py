"""`vlm serve`: what answers over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from vlm.cli.options import Device, Dtype, Offline
from vlm.cli.output import say
from vlm.errors import BadInput, VlmError, unknown

app = typer.Typer(help="Serve a model over HTTP.", rich_markup_mode=None)


@app.callback()
def serve() -> None:  # without it a single command would take the place of the group
    """Serve a model over HTTP."""


@app.command("retrieval", epilog="\b\nExample:\n  vlm serve retrieval --model nano --root service --media photos/")
def retrieval(
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="Where collections are kept.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="NAME",
            help="A model of `vlm models`, or `colours`, which needs none; may be repeated, the first is the default.",
        ),
    ] = ["nano"],  # noqa: B006
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes one that is free.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="Lines of `read KEY` or `write KEY`.")
    ] = None,
    keep_originals: Annotated[
        bool, typer.Option("--keep-originals", help="Keep pictures as they came, so that `vlm reindex` can read them.")
    ] = False,
    media: Annotated[
        list[Path] | None, typer.Option("--media", metavar="DIR", help="A folder whose files can be named by path.")
    ] = None,
    opened: Annotated[
        list[str] | None,
        typer.Option("--open", metavar="NAME=FOLDER", help="An index of `vlm index`, served as a collection to read."),
    ] = None,
    urls: Annotated[bool, typer.Option("--urls", help="Fetch URLs, from public addresses alone.")] = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether there is a page to search on.")] = True,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="What keeps new collections: lance or flat.")
    ] = "lance",
    store: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="URL",
            help="Keep vectors not below --root but in s3://bucket/prefix (LanceDB) or http://host:6333 (Qdrant).",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="https://app.example: a web page whose scripts may use the API."),
    ] = None,
    body_mb: Annotated[int, typer.Option("--body-mb", min=1, metavar="N", help="The largest upload.")] = 256,
    deadline: Annotated[
        float, typer.Option("--deadline", min=0.1, metavar="SECONDS", help="For a batch that the model has begun.")
    ] = 60.0,
    wait: Annotated[
        float, typer.Option("--wait", min=0.1, metavar="SECONDS", help="What an upload may wait for before that.")
    ] = 120.0,
    access_log: Annotated[
        Path | None, typer.Option("--access-log", metavar="FILE", help="A line of JSON for each request.")
    ] = None,
    audit_log: Annotated[
        Path | None, typer.Option("--audit-log", metavar="FILE", help="A line for each that changes something.")
    ] = None,
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
        from vlm.server.http.settings import ENGINES, MB, Limits, Settings
        from vlm.server.retrieval.run import serve as run
    except ModuleNotFoundError as error:
        raise VlmError(f"the server needs {error.name} (pip: vlm[serve])") from None
    from vlm.cli.session import check_model
    from vlm.index import is_folder

    if page and find_spec("gradio") is None:
        say("no page: it needs gradio (pip: vlm[page])")
        page = False
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if store is not None and is_folder(store):
        raise BadInput(f"--index {store}: expected s3://bucket/prefix or http://host:port, got a folder")
    for name in model:
        if name not in EMBEDDERS:
            check_model(name)
        if model.count(name) > 1:
            raise BadInput(f"--model {name}: expected each model once")
    loads = [partial(loaded, name, offline, device, dtype) for name in model]
    settings = Settings(
        root=root.resolve(),
        media=tuple(path.resolve() for path in media or ()),
        opened=_named(opened or ()),
        originals=keep_originals,
        urls=urls and not offline,
        engine=engine,
        store=store,
        page=page,
        access_log=access_log,
        audit_log=audit_log,
        origins=tuple(map(origin, cors or ())),
        limits=Limits(body_bytes=body_mb * MB, answer_seconds=deadline, wait_seconds=wait),
    )
    run(settings, loads, host=host, port=port, keys=read_keys(keys) if keys else None, say=say)


def origin(text: str) -> str:
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
