"""`vlm chat` and `vlm match`: a conversation about pictures, and how well texts fit one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.dialogue import Dialogue, from_lines, in_terminal, printed
from vlm.cli.options import AsJson, Device, Dtype, Frames, ModelName, Offline, Sampling
from vlm.cli.output import emit, table
from vlm.cli.session import lazy_model, open_input, sampling_of
from vlm.cli.told import Told
from vlm.errors import BadInput
from vlm.files import name_text, path_meant
from vlm.media.kinds import kind_of_name
from vlm.media.urls import is_url

if TYPE_CHECKING:
    from vlm.media.open import Media


def chat(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE]... [TEXT]", help="Pictures, clips or URLs, and what is said of them, if once."
        ),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="PATH", help="A picture, video or URL; may be repeated.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system turn before it.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, metavar="N", help="Of a reply, at most.")] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="0: the likeliest token each time; above, it is drawn.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", metavar="P", help="Drawn from the likeliest tokens of this mass together.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same seed draws the same replies.")
    ] = None,
    session: Annotated[
        Path | None,
        typer.Option("--session", metavar="FILE", help="Goes on with the conversation in it; written after each turn."),
    ] = None,
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Converse with a model, with or without pictures. Replies are printed as they are written.

    With TEXT one thing is said, where <image> stands for a picture; pictures that it has no <image> for stand before
    it. Without, lines are asked one after another, from the terminal or a pipe; /help lists what else a line may be.
    """
    load, chosen = lazy_model(model, offline, device=device, dtype=dtype), sampling_of(model, frames, sampling)
    text, shown = _told_apart(words or [])
    if text is None and as_json and sys.stdin.isatty():
        raise BadInput("--json: expected TEXT, or questions from a pipe, got a terminal")
    told = Told()
    media = [open_input(path, told, offline, chosen) for path in [*shown, *(image or [])]]

    def open_one(path: str) -> Media:
        own = Told()
        found = open_input(path, own, offline, chosen)
        own.say()
        return found

    talk = Dialogue(
        load, open_one, media, system, session, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    if text is None and sys.stdin.isatty():
        told.say()
        in_terminal(talk)
        talk.keep()
        return
    if text is None:
        turns = from_lines(talk, iter(sys.stdin), told.skip, shown=not as_json)
        if not turns and not told.skipped:
            raise BadInput("nothing to say: give TEXT, or questions on standard input")
        left_out = told.say("question")
        if as_json:
            emit({"turns": turns, **left_out})
        told.end()
        return
    pieces, left_out = talk.reply(text), told.say()
    if as_json:
        emit({"reply": "".join(pieces).strip(), **left_out})
    else:
        printed(pieces)
    talk.keep()


def _told_apart(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The text among the arguments, if there is one, and the pictures: files that are there, and URLs."""
    texts, shown = [], []
    for word in words:
        if is_url(word) or os.path.lexists(path_meant(word)):
            shown.append(word)
        elif not re.search(r"\s", word) and (kind := kind_of_name(word)) is not None and kind.medium is not None:
            raise BadInput(f"{name_text(word)}: expected a picture or clip, got no file of this name")
        elif not word.strip():
            raise BadInput("the text is empty; expected some words")
        else:
            texts.append(word)
    if len(texts) > 1:
        raise BadInput(f"expected one text (in quotes) beside pictures, got {len(texts)}: {texts[0]!r}, {texts[1]!r}")
    return (texts[0] if texts else None), shown


def match(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A picture, a video, or a URL.")],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts that may describe it.")],
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Order texts by how likely the model's language finds them as the picture's caption, in nats a token."""
    load = lazy_model(model, offline, device=device, dtype=dtype)
    told = Told()
    media = open_input(path, told, offline, sampling_of(model, frames, sampling))
    notes = told.say()
    scores = load().match([media] * len(texts), texts)
    rows = sorted(zip(texts, scores, strict=True), key=lambda row: -row[1])
    if as_json:
        emit({"results": [{"text": text, "score": round(score, 6)} for text, score in rows], **notes})
    else:
        table(["score", "text"], [[f"{score:.3f}", text] for text, score in rows])
