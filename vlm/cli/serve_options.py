"""Options of the commands that serve, called and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Root: TypeAlias = Annotated[Path, typer.Option("--root", metavar="DIR", help="Where collections are kept.")]
Host: TypeAlias = Annotated[str, typer.Option("--host", help="The address to listen on.")]
Port: TypeAlias = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes one that is free.")]
KeysFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="Lines of `read KEY` or `write KEY`; to write is to change something."),
]
MediaFolders: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--media", metavar="DIR", help="A folder whose files can be named by path.")
]
Urls: TypeAlias = Annotated[bool, typer.Option("--urls", help="Fetch URLs, from public addresses alone.")]
Cors: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--cors", metavar="ORIGIN", help="https://app.example: a web page whose scripts may use the API."),
]
BodyMb: TypeAlias = Annotated[int, typer.Option("--body-mb", min=1, metavar="N", help="The largest request.")]
AccessLog: TypeAlias = Annotated[
    Path | None, typer.Option("--access-log", metavar="FILE", help="A line of JSON for each request.")
]

# Of collections.
KeepOriginals: TypeAlias = Annotated[
    bool, typer.Option("--keep-originals", help="Keep pictures as they came, so that `vlm reindex` can read them.")
]
Opened: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--open", metavar="NAME=FOLDER", help="An index of `vlm index`, served as a collection to read."),
]
Page: TypeAlias = Annotated[bool, typer.Option("--page/--no-page", help="Whether there is a page.")]
IndexEngine: TypeAlias = Annotated[
    str, typer.Option("--engine", metavar="NAME", help="What keeps new collections: lance or flat.")
]
Store: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="URL",
        help="Keep vectors not below --root but in s3://bucket/prefix (LanceDB) or http://host:6333 (Qdrant).",
    ),
]
Wait: TypeAlias = Annotated[
    float, typer.Option("--wait", min=0.1, metavar="SECONDS", help="What an upload may wait for before it is embedded.")
]
AuditLog: TypeAlias = Annotated[
    Path | None, typer.Option("--audit-log", metavar="FILE", help="A line for each that changes something.")
]

# Of replies.
MaxTokens: TypeAlias = Annotated[
    int, typer.Option("--max-tokens", min=1, metavar="N", help="Of a reply that says nothing of its length.")
]
Running: TypeAlias = Annotated[
    int, typer.Option("--running", min=1, metavar="N", help="Replies written at the same time.")
]
Waiting: TypeAlias = Annotated[
    int, typer.Option("--waiting", min=1, metavar="N", help="Replies that wait for that; more are refused.")
]
MemoryMb: TypeAlias = Annotated[
    int, typer.Option("--memory-mb", min=1, metavar="N", help="For the keys and values of all conversations.")
]
Draft: TypeAlias = Annotated[
    str | None,
    typer.Option("--draft", metavar="MODEL", help="A small one with the same tokens that guesses ahead for --model."),
]
ReplyDeadline: TypeAlias = Annotated[
    float, typer.Option("--deadline", min=0.1, metavar="SECONDS", help="After which a reply ends as it is.")
]
SessionsFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--sessions", metavar="DIR", help="Where conversations are kept that callers save.")
]
MaxSessions: TypeAlias = Annotated[
    int, typer.Option("--max-sessions", min=1, metavar="N", help="That each key may keep.")
]
SessionsMb: TypeAlias = Annotated[
    int, typer.Option("--sessions-mb", min=1, metavar="N", help="For the sessions of all keys, on disk.")
]
ServedTemperatures: TypeAlias = Annotated[
    Path | None,
    typer.Option("--temperatures", metavar="FILE", help="A decision.json of `vlm calibrate`, for /v1/decisions."),
]
