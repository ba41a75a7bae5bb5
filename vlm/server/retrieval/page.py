"""The page: search by words or a picture, look at what is found, add files. Nothing on it comes from elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile

from vlm.server.http.app import Behind
from vlm.server.http.errors import ApiError
from vlm.server.http.pages import EXPECTED, PRIVATE, Part, gr, plain, problem, who
from vlm.server.retrieval import items as ingest
from vlm.server.retrieval.collection import Collection
from vlm.server.retrieval.page_cards import Cards
from vlm.server.retrieval.schemas import Search
from vlm.server.retrieval.searching import public, search
from vlm.server.retrieval.service import Service

KINDS = {"everything": None, "pictures": "image", "clips": "video", "texts": "text"}
TOP = 24
FIRST = "photos"
"""The collection that is made where there is none to choose."""
CSS = """
.found {display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 14px}
.found figure {margin: 0; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden;
  display: flex; flex-direction: column; background: var(--block-background-fill)}
.found img, .found video {width: 100%; height: 150px; object-fit: cover; display: block; background: #0001}
.found .words {height: 150px; padding: 12px; overflow: auto}
.found figcaption {padding: 8px 10px; font-size: 13px; flex: 1; overflow-wrap: anywhere}
.found button {border-top: 1px solid var(--border-color-primary); padding: 6px; font-size: 13px; cursor: pointer;
  color: var(--link-text-color); width: 100%}
.found .both {display: flex}
.opened {display: flex; gap: 20px; align-items: flex-start}
.opened img, .opened video {max-width: 60%; max-height: 480px; border-radius: 8px}
.opened pre {white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px}
.found .score {float: right; font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued)}
"""
# The clicks of all buttons arrive here, whatever is drawn later.
ON_LOAD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-like], button[data-open], button[data-delete]');
  if (button) trigger('click', {...button.dataset});
});
"""
Browsed = tuple[str, str, str, str | None, str | None]
"""A line, an opened entry, cards, the id that this page follows, and that which the next one does."""


def part(service: Callable[[], Service], behind: Behind) -> Part:
    """The page of `service`."""
    return Part("Collections", "vlm", partial(_draw, _Handlers(service, behind)), CSS)


def _draw(does: _Handlers, page: gr.Blocks) -> None:
    with gr.Row():
        gr.Markdown("# Search pictures and clips")
        collection = gr.Dropdown([], label="Collection", allow_custom_value=True)
    with gr.Tab("Search"):
        with gr.Row():
            with gr.Column(scale=3):
                words = gr.Textbox(label="Words", placeholder="a dog in the snow", autofocus=True)
                with gr.Row():
                    kind = gr.Dropdown(list(KINDS), value="everything", label="Show")
                    least = gr.Slider(-1, 1, value=-1, step=0.01, label="Least score")
                where = gr.Textbox(label="Filter", placeholder='{"year": {"gte": 2020}}')
                go = gr.Button("Search", variant="primary")
            picture = gr.Image(
                label="Or drop a picture", type="filepath", image_mode=None, sources=["upload", "clipboard"],
                height=260, scale=1,
            )  # fmt: skip
        note = gr.Markdown()
        found = gr.HTML(elem_classes="results", js_on_load=ON_LOAD)
    with gr.Tab("Browse"):
        with gr.Row():
            listed = gr.Textbox(label="Only those that fit", placeholder='{"year": {"gte": 2020}}', scale=4)
            start = gr.Button("From the beginning", variant="primary")
            on = gr.Button("Next page")
        told = gr.Markdown()
        opened = gr.HTML()
        entries = gr.HTML(elem_classes="results", js_on_load=ON_LOAD)
        here, following = gr.State(None), gr.State(None)
    with gr.Tab("Upload"):
        files = gr.File(label="Pictures and clips", file_count="multiple", type="filepath")
        metadata = gr.Textbox(label="Metadata of all of them", placeholder='{"year": 2024}')
        add = gr.Button("Add", variant="primary")
        added = gr.Markdown()
    options = [collection, kind, least, where]
    page.load(does.names, None, collection, **PRIVATE)
    for event in (go.click, words.submit):
        event(does.words, [*options, words], [note, found], **PRIVATE)
    picture.upload(does.picture, [*options, picture], [note, found], **PRIVATE)
    found.click(does.like, options, [note, found], **PRIVATE)
    shown = [told, opened, entries, here, following]
    start.click(does.browse, [collection, listed], shown, **PRIVATE)
    on.click(does.browse, [collection, listed, following], shown, **PRIVATE)
    entries.click(does.act, [collection, listed, here], shown, **PRIVATE)
    add.click(does.add, [collection, files, metadata], [added, collection], **PRIVATE)


class _Handlers:
    """What the page's events do. Each gives a line to read and what is shown."""

    def __init__(self, service: Callable[[], Service], behind: Behind) -> None:
        self._service, self._guarded, self._audit = service, behind.guarded, behind.logs.audit
        self._cards = Cards(behind.signer)

    async def names(self) -> Any:
        names = [collection.name for collection in self._service().collections]
        return gr.Dropdown(names, value=names[0] if names else None)

    async def words(self, name: str, kind: str, least: float, where: str, words: str) -> tuple[str, str]:
        return await self._search(name, kind, least, where, {"text": words or ""})

    async def picture(self, name: str, kind: str, least: float, where: str, path: str | None) -> tuple[str, str]:
        if path is None:
            return "", ""
        with Path(path).open("rb") as file:
            content = file.read(self._service().limits.image_bytes + 1)
        return await self._search(name, kind, least, where, {"image": base64.b64encode(content).decode()})

    async def like(self, name: str, kind: str, least: float, where: str, event: gr.EventData) -> tuple[str, str]:
        return await self._search(name, kind, least, where, {"id": str(event.like)})

    async def browse(self, name: str, where: str, after: str | None = None) -> Browsed:
        """The entries after an id, a page of them."""
        try:
            service = self._service()
            if not name:
                return "There is no collection yet: add some pictures.", "", "", None, None
            collection = service.collections[name]
            rows = await collection.page(TOP + 1, after, _object(where), None, vectors=False)
        except EXPECTED as error:
            return problem(error), "", "", None, None
        cards = "".join(self._cards.entry(collection, id, public(about)) for id, about, _ in rows[:TOP])
        following = rows[TOP - 1][0] if len(rows) > TOP else None
        said = f"{len(rows[:TOP])} of {len(collection)} in {collection.name}" + ("" if following else ", the last ones")
        return said, "", f'<div class="found">{cards}</div>', after, following

    async def act(self, name: str, where: str, after: str | None, event: gr.EventData, request: gr.Request) -> Browsed:
        """Open an entry, or delete it, and show the same page again."""
        opened, said = "", ""
        try:
            collections = self._service().collections
            collection = collections[name or ""]
            if (id := getattr(event, "delete", None)) is not None:
                said = await self._delete(collections.writable(collection.name), str(id), request)
            elif (id := getattr(event, "open", None)) is not None:
                metadata, _ = await collection.entry(str(id))
                opened = self._cards.opened(collection, str(id), public(metadata))
        except EXPECTED as error:
            said = problem(error)
        told, _, cards, here, following = await self.browse(name, where, after)
        return said or told, opened, cards, here, following

    async def _delete(self, collection: Collection, id: str, request: gr.Request) -> str:
        if self._guarded and request.username != "write":
            return "This login may read and not write."
        count = await collection.delete([id])
        self._audit(**who(request), collection=collection.name, deleted=count, ids=[id])
        return f"{plain(id)} is deleted." if count else f"There is no {plain(id)} any more."

    async def add(
        self, name: str | None, paths: list[str] | None, metadata: str, request: gr.Request
    ) -> tuple[str, Any]:
        """A line for each that is refused, and the collections, of which this one may be new."""
        said = await self._add((name or "").strip() or FIRST, paths, metadata, request)
        names = [collection.name for collection in self._service().collections]
        return said, gr.Dropdown(names, value=name if name in names or not names else names[0])

    async def _add(self, name: str, paths: list[str] | None, metadata: str, request: gr.Request) -> str:
        if self._guarded and request.username != "write":
            return "This login may read and not write."
        try:
            service = self._service()
            about, paths = _object(metadata) or {}, paths or []
            if not 1 <= len(paths) <= service.limits.batch:
                return f"Expected 1 to {service.limits.batch} files, got {len(paths)}."
            with ExitStack() as opened:
                uploads = [
                    ingest.Upload(UploadFile(opened.enter_context(path.open("rb")), filename=path.name), None, about)
                    for path in map(Path, paths)
                ]
                statuses = await ingest.add(service, await service.collections.get_or_create(name), uploads)
        except EXPECTED as error:
            return problem(error)
        kept = [status.id for status in statuses if status.error is None]
        self._audit(**who(request), collection=name, ids=kept)
        refused = [
            f"\n- {plain(upload.file.filename or '')}: {plain(status.error.message)}"
            for upload, status in zip(uploads, statuses, strict=True)
            if status.error is not None
        ]
        return f"{len(statuses) - len(refused)} added, {len(refused)} refused." + "".join(refused)

    async def _search(self, name: str, kind: str, least: float, where: str, query: dict[str, str]) -> tuple[str, str]:
        try:
            service = self._service()
            if not name:
                return "There is no collection yet: add some pictures.", ""
            collection = service.collections[name]
            wanted = _object(where)
            only = KINDS.get(kind)
            if only is not None and collection.media is not None:  # an index that is served does not say kinds
                wanted = {**(wanted or {}), "_kind": only}
            asked = Search.model_validate(
                {**query, "top": TOP, "filter": wanted, "min_score": least if least > -1 else None}
            )
            hits = (await search(service, collection, [asked], asked))[0].hits
        except EXPECTED as error:
            return problem(error), ""
        hits = [hit for hit in hits if only in (None, collection.kind(hit.id, hit.metadata))]
        cards = "".join(self._cards.hit(collection, hit) for hit in hits)
        of = f"of {len(collection)} in {collection.name}"
        return f"{len(hits)} {of}" if hits else f"Nothing found {of}", f'<div class="found">{cards}</div>'


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None of no text. Raises `ApiError`."""
    if not (text or "").strip():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(422, "invalid", 'expected a JSON object like {"year": 2024}')
    return found
