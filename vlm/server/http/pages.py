"""What the servers' pages have in common: where they are, who may log in, how they look, how an error is told.

Nothing on them comes from elsewhere. Needs Gradio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError
from starlette.types import ASGIApp

from vlm.errors import BadInput
from vlm.server.http.auth import Keys
from vlm.server.http.browsers import PAGE, Cookies
from vlm.server.http.errors import ApiError, told
from vlm.server.http.scratch import of_this_process
from vlm.server.http.settings import Limits

# Both are read when gradio is imported. Its own place for uploads is one for all users of a machine.
os.environ["GRADIO_TEMP_DIR"] = str(of_this_process())
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # pages take it from here
from gradio.blocks import Block

__all__ = ["EXPECTED", "PRIVATE", "Part", "gr", "mount", "plain", "problem", "who"]

EXPECTED = (ApiError, BadInput, ValidationError)
"""What is told on the page, in a line; anything else is the server's fault and in its log."""
PRIVATE: Final[dict[str, Any]] = {"api_visibility": "private"}
"""Of every event: the API is elsewhere."""
KEPT_SECONDS = 3600
"""What is uploaded, from when it was last used."""
POLL_SECONDS = 0.02
"""Between two looks for an event; Gradio's own millisecond takes a twentieth of a core from a server that idles."""
URL = re.compile(r"\s*https?:", re.I)
HEAD = "<style>@media (max-width: 600px) {.main.app {padding: 8px !important}}</style>"
"""On a telephone. `css` reaches only what lies further inside."""
_move = Block.async_move_resource_to_block_cache


@dataclass(frozen=True)
class Part:
    """What one service has on the page: all of it, or where there are several a tab beside the others'."""

    name: str
    """Of the tab."""
    title: str
    """Of the page that has nothing else."""
    draw: Callable[[gr.Blocks], None]
    """Fills the place in the page that is open."""
    css: str


def mount(app: FastAPI, parts: Sequence[Part], keys: Keys | None, limits: Limits) -> ASGIApp:
    """Serve these on one page below `/page`; with `keys`, to whoever logs in with a role and its key. Returns the
    application inside what guards its cookies.

    Tabs are of one page, so that a conversation is still there for whoever looked for a picture meanwhile.
    """
    page = _page(parts)

    def login(role: str, key: str) -> bool:
        return keys is not None and keys.role(key) == role

    @app.get("/", include_in_schema=False)
    async def start() -> RedirectResponse:
        return RedirectResponse(f"{PAGE}/")

    app.get(PAGE, include_in_schema=False)(start)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    # Who has to wait is said by the server behind the page, as to any caller.
    page.max_threads, page.state_session_capacity = limits.requests, limits.connections
    page.queue(default_concurrency_limit=None)
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = POLL_SECONDS
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    gr.mount_gradio_app(
        app, page, PAGE,
        auth=login if keys is not None else None,
        auth_message="The username is read or write, the password its key.",
        max_file_size=min(limits.body_bytes, max(limits.image_bytes, limits.video_bytes)),
        footer_links=[], run_history=False, ssr_mode=False, pwa=False, mcp_server=False, theme=theme,
        css="".join(part.css for part in parts), head=HEAD,
    )  # fmt: skip
    # Only of what was launched does Gradio refuse files that a browser names and did not upload: any other of this
    # machine would be copied to where it can be fetched.
    page.has_launched = True
    Block.async_move_resource_to_block_cache = _uploaded
    return Cookies(app)


def _page(parts: Sequence[Part]) -> gr.Blocks:
    alone = len(parts) == 1
    title = parts[0].title if alone else "vlm"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        for part in parts:
            with nullcontext() if alone else gr.Tab(part.name):
                part.draw(page)
    return page


async def _uploaded(block: Block, path: str | Path | None) -> str | None:
    """In place of what would fetch a URL that a browser names for a file."""
    if URL.match(str(path)):
        raise gr.Error("expected a file that was uploaded, got a URL", print_exception=False)
    return await _move(block, path)


def who(request: gr.Request) -> dict[str, Any]:
    """Of an event, as a line of a log says it."""
    client = getattr(getattr(request, "client", None), "host", None)
    return {"client": client, "login": request.username, "path": PAGE}


def problem(error: Exception) -> str:
    """One of `EXPECTED` in a line, as the API says it."""
    text = told(error.errors()) if isinstance(error, ValidationError) else getattr(error, "message", str(error))
    return plain(text)


def plain(text: str) -> str:
    """A line that Markdown leaves as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+!|<>~$&" else c for c in " ".join(text.split()))
