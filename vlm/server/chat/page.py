"""The page: a conversation about pictures and clips, with what the model was shown of them beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from vlm.heads.decisions.questions import YesNo
from vlm.media.open import Media
from vlm.models.processor import Prompt
from vlm.server.chat.decisions import decided
from vlm.server.chat.looked import cost, looked
from vlm.server.chat.service import ChatService
from vlm.server.chat.settings import ChatSettings
from vlm.server.chat.turns import Talk, Turn, asked, drawn, size
from vlm.server.http.app import Behind
from vlm.server.http.auth import fingerprint
from vlm.server.http.budget import Budget, Room
from vlm.server.http.pages import EXPECTED, PRIVATE, Part, gr, problem, who

PATIENCE = 1.0
"""Seconds without a token after which the page is told something, which finds out whether it is still there."""
CSS = """
.talk {height: max(320px, calc(100dvh - 330px)) !important}
.note, .shown {overflow-wrap: anywhere}
.talk [aria-label="Share"] {display: none}
.frames .grid-wrap {min-height: 0}
.frames .grid-container {grid-template-columns: repeat(auto-fill, minmax(96px, 1fr))}
"""
Update = dict[Any, Any]
Noted = Callable[..., None]
"""Told what a turn cost, for the access log."""


def part(service: Callable[[], ChatService], settings: ChatSettings, behind: Behind) -> Part:
    """The page of `service`."""
    return Part("Chat", "vlm chat", _Page(service, settings, behind).draw, CSS)


class _Page:
    """Its parts, and what its events do. All that is kept of a tab is its `Talk`."""

    def __init__(self, service: Callable[[], ChatService], settings: ChatSettings, behind: Behind) -> None:
        self._service, self._settings, self._limits = service, settings, settings.limits
        self._guarded, self._log = behind.guarded, behind.logs.access
        self._bytes = Budget(settings.limits.bodies_bytes)
        self._folder = Path(get_upload_folder()).resolve()

    def draw(self, page: gr.Blocks) -> None:
        settings = self._settings
        talk = gr.State(Talk())
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.chat = gr.Chatbot(
                    label="Conversation", render_markdown=False, elem_classes="talk", buttons=[],
                    feedback_options=None, layout="bubble", placeholder="Ask something about a picture or a clip.",
                )  # fmt: skip
                self.note = gr.Markdown(elem_classes="note")
                self.box = gr.MultimodalTextbox(
                    show_label=False, placeholder="Ask, or add a picture or clip", lines=1,
                    max_lines=8, file_count="multiple", sources=["upload"], autofocus=True,
                    max_plain_text_length=settings.limits.characters, elem_classes="box",
                )  # fmt: skip
                anew = gr.Button("Start anew", size="sm")
                with gr.Accordion("Settings", open=False):
                    tokens = gr.Number(
                        0, label="Most tokens of a reply", info=f"0 takes up to {settings.max_tokens}", precision=0
                    )
                    temperature = gr.Slider(
                        0, 2, value=0, step=0.1, label="Temperature", info="0 takes the likeliest token"
                    )
                    yes_no = gr.Checkbox(label="Yes or no", info="Answer with probabilities")
            with gr.Column(scale=2, min_width=320):
                self.chances = gr.Label(label="Yes or no", visible=False, elem_classes="chances")
                gr.Markdown("### What the model was shown")
                self.lines = gr.Markdown("Nothing yet.", elem_classes="shown")
                self.frames = gr.Gallery(
                    show_label=False, columns=4, height="auto", object_fit="contain", interactive=False,
                    buttons=["fullscreen"], visible=False, elem_classes="frames",
                )  # fmt: skip
        parts = [self.chat, self.note, self.box, self.lines, self.frames, self.chances]
        hidden: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
        page.load(self._named, None, [self.chat, self.note], **hidden)
        said = self.box.submit(self._say, [self.box, talk, tokens, temperature, yes_no], parts, **hidden)
        said.then(self._after, [self.box, talk], [self.chat, self.box], **hidden)
        self.box.stop(None, cancels=[said], **PRIVATE)
        for begin in (anew.click, self.chat.clear):
            begin(None, cancels=[said], **PRIVATE)
            begin(self._anew, [talk], parts, **hidden)

    async def _named(self) -> Update:
        """Whom one talks to."""
        try:
            return {self.chat: gr.Chatbot(label=self._service().loaded.name)}
        except EXPECTED as error:
            return {self.note: problem(error)}

    async def _say(
        self, typed: dict[str, Any], talk: Talk, tokens: int | None, temperature: float, yes_no: bool,
        request: gr.Request,
    ) -> AsyncGenerator[Update, None]:  # fmt: skip
        """Whoever stops it or goes away ends it: the request in the engine is cancelled."""
        turn = Turn(typed["text"], [Path(file) for file in typed["files"]])
        if turn.empty or (yes_no and not turn.text.strip()):
            yield {self.note: "Write a question." if yes_no else "Write something, or add a picture or a clip."}
            return
        talk.turns.append(turn)
        yield {
            self.chat: drawn(talk.turns), self.note: "",
            self.box: gr.MultimodalTextbox({"text": "", "files": []}, submit_btn=False, stop_btn=True),
        }  # fmt: skip
        client = fingerprint(f"{request.username} {request.session_hash}") if self._guarded else ""
        fields = {"max_tokens": tokens or None, "temperature": temperature}
        noted = partial(self._log, **who(request))
        try:
            if yes_no:
                working = self._decide(talk, turn, client, noted)
            else:
                working = self._write(talk, turn, client, noted, fields)
            async with aclosing(working):
                async for update in working:
                    yield {self.chat: drawn(talk.turns), **update}
        except EXPECTED as error:
            yield {self.note: f"**{problem(error)}**"}

    def _room(self, talk: Talk) -> AbstractAsyncContextManager[Room]:
        """For the bytes of its files, until they are decoded."""
        return self._bytes.reserve(size(talk.files, self._limits.body_bytes))

    async def _write(
        self, talk: Talk, turn: Turn, client: str, noted: Noted, fields: dict[str, Any]
    ) -> AsyncGenerator[Update, None]:
        service = self._service()
        async with self._room(talk):
            wanted = await asked(service, talk, self._folder, client, **fields)
            wanted = replace(wanted, noted=lambda usage: noted(**vars(usage)))
            answering = await service.answering(wanted, streams=True)
        try:
            yield await asyncio.to_thread(self._shown, service, answering.prompt, answering.media)
            async for piece in answering.pieces(PATIENCE):
                if piece is None:
                    yield {} if turn.reply else {self.note: "Waiting for its turn."}
                    continue
                turn.reply, turn.done = turn.reply + piece.text, piece.finish is not None
                yield {self.note: cost(piece.usage, piece.finish) if piece.usage and piece.finish else ""}
        finally:
            await answering.close()

    async def _decide(self, talk: Talk, turn: Turn, client: str, noted: Noted) -> AsyncGenerator[Update, None]:
        service, shown = self._service(), Update()

        def tell(prompt: Prompt, media: Sequence[Media]) -> None:
            shown.update(self._shown(service, prompt, media))

        async with self._room(talk):
            wanted = await asked(service, talk, self._folder, client, decides=True)
            got = await decided(service, wanted.messages, wanted.media, [YesNo(turn.text)], client, tell)
        noted(prompt=got.tokens)
        (found,) = got.answers
        turn.reply, turn.done = found.best, True
        note = f"Yes and no together are {found.mass:.1%} of all that the model might say."
        yield {**shown, self.note: note, self.chances: gr.Label(dict(found.probabilities), visible=True)}

    def _shown(self, service: ChatService, prompt: Prompt, media: Sequence[Media]) -> Update:
        found = looked(service.loaded.processor, prompt, media)
        return {
            self.lines: found.lines, self.frames: gr.Gallery(found.frames, visible=bool(found.frames)),
            self.chances: gr.Label(visible=False),
        }  # fmt: skip

    async def _after(self, typed: dict[str, Any] | None, talk: Talk) -> Update:
        """However a reply ended: what has none goes back to where it was typed, before what was typed since."""
        ready = {"submit_btn": True, "stop_btn": False}
        if not talk.turns or talk.turns[-1].done or talk.turns[-1].reply:
            return {self.box: gr.MultimodalTextbox(**ready)}
        turn, since = talk.turns.pop(), typed or {"text": "", "files": []}
        text = "\n".join(filter(None, (turn.text, since["text"])))
        files = [*map(str, turn.files), *since["files"]]
        return {
            self.chat: drawn(talk.turns), self.box: gr.MultimodalTextbox({"text": text, "files": files}, **ready),
        }  # fmt: skip

    async def _anew(self, talk: Talk) -> Update:
        talk.turns.clear()
        return {
            self.chat: [], self.note: "", self.box: gr.MultimodalTextbox(submit_btn=True, stop_btn=False),
            self.lines: "Nothing yet.", self.frames: gr.Gallery([], visible=False),
            self.chances: gr.Label(visible=False),
        }  # fmt: skip
