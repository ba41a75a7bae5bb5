"""`vlm upload`: pictures and clips to a server that runs elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.options import AsJson, Below, Column, Offline
from vlm.cli.output import emit, say, working
from vlm.cli.told import Told
from vlm.errors import BadInput

if TYPE_CHECKING:
    from vlm.remote import Server


def upload(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder; a .txt of paths and URLs; a .csv, .tsv, .jsonl or .parquet; COCO's or LLaVA's .json; "
            "a .tar of shards ('*').",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="http://host:8000/collection, made where there is none; without a name, the source's.",
        ),
    ],
    column: Column = None,
    below: Below = None,
    patience: Annotated[
        float,
        typer.Option(
            "--patience", min=0.0, metavar="SECONDS", help="How long a server that is busy or gone is asked again."
        ),
    ] = 300.0,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Send pictures and videos to a collection of a running `vlm serve retrieval`.

    What the server has with the same content is not sent again, so after a kill the same command goes on where it was.
    URLs are fetched by the server where it does that, else here. The key is read from $VLM_SERVER_KEY. What is left out
    or changed is told on stderr; the exit code is 2 if items were skipped.
    """
    from vlm.ingest import plan
    from vlm.ingest.sources import open_source
    from vlm.ingest.upload import upload as run
    from vlm.remote import Server
    from vlm.weights.parts import network_is_off

    if plan.there(Path(source)):
        raise BadInput(f"{source}: expected pictures and clips, got a folder of vectors by `vlm embed`")
    address, name = _address(to)
    read = open_source(source, column, below)
    name = name or _name(source)
    server = Server(address, patience=patience)
    try:
        _made(server, name)
        with working("upload", read.total) as advance:
            done = run(server, name, read, offline=offline or network_is_off(), advance=advance)
    finally:
        server.close()
    told = Told(done.skipped)
    told.notes.add_all(done.notes)
    left_out = {"skipped": [], **told.say("path")}
    if as_json:
        counts = {"stored": done.stored, "sent": done.sent, "unchanged": done.unchanged}
        emit({"collection": name, **counts, **left_out})
    else:
        print(f"{address}/{name}: {done.sent} sent, {done.unchanged} there already, {len(done.skipped)} skipped")
    told.end()
    if not done.stored:
        raise typer.Exit(2)


def _address(to: str) -> tuple[str, str]:
    """A server's address, and the collection's name where there is one. Raises `BadInput`."""
    match = re.fullmatch(r"(https?://[^/]+)(?:/v1/collections)?(?:/([A-Za-z0-9][A-Za-z0-9_-]{0,63}))?/?", to)
    if match is None:
        raise BadInput(f"--to {to:.200}: expected http://host:port/collection, its name of letters, digits, - and _")
    return match[1], match[2] or ""


def _name(source: str) -> str:
    """Of a collection, after the source's own."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(source).absolute().name.partition(".")[0]).strip("-")[:64]
    return name or "items"


def _made(server: Server, name: str) -> None:
    from vlm.remote import Refused

    try:
        server.ask("GET", f"/v1/collections/{name}")
    except Refused as error:
        if error.code == "not_found":  # the address itself
            raise BadInput(
                f"{server.url}: expected a server of collections (`vlm serve retrieval` or `vlm serve all`), "
                f"got {_title(server)!r}, which keeps none"
            ) from None
        if error.code != "collection_not_found":
            raise
        try:
            server.ask("POST", "/v1/collections", {"name": name})
        except Refused as refusal:
            if refusal.code != "exists" or repr(name) not in refusal.said:  # made meanwhile
                raise
        say(f"made the collection {name}")


def _title(server: Server) -> str:
    """What a server calls itself. Raises `BadInput`."""
    try:
        return str(server.ask("GET", "/openapi.json")["info"]["title"])[:100]
    except (KeyError, TypeError):
        raise BadInput(f"{server.url}: expected the retrieval API, got another") from None
