"""`vlm chat` and `vlm match`: a conversation about pictures, and how well texts fit one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm.cli.options import AsJson, Device, Dtype, Frames, ModelName, Offline, Sampling
from vlm.cli.output import emit, table
from vlm.cli.session import lazy_model, open_input, sampling_of
from vlm.cli.told import Told
from vlm.errors import BadInput


def chat(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is said; <image> where a picture stands.")],
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="PATH", help="A picture, video or URL; may be repeated.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system turn before it.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, metavar="N", help="Of the reply, at most.")] = 256,
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Say something to a model, with or without pictures, and print its reply as it is written.

    Pictures that the text has no <image> for stand before it.
    """
    if not text.strip():
        raise BadInput("the text is empty; expected some words")
    load, chosen = lazy_model(model, offline, device=device, dtype=dtype), sampling_of(model, frames, sampling)
    told = Told()
    media = [open_input(path, told, offline, chosen) for path in image or []]
    missing = len(media) - text.count("<image>")
    if missing < 0:
        raise BadInput(f"text: expected at most {len(media)} <image> for as many --image, got {text.count('<image>')}")
    shown: list[dict[str, Any]] = [{"type": "video" if m.is_clip else "image", **_own(m)} for m in media[:missing]]
    rest = iter(media[missing:])
    pieces = text.split("<image>")
    parts = [*shown, {"type": "text", "text": pieces[0]}]
    for piece in pieces[1:]:
        item = next(rest)
        parts += [{"type": "video" if item.is_clip else "image", **_own(item)}, {"type": "text", "text": piece}]
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": [part for part in parts if part.get("text", "x")]})
    loaded, notes = load(), told.say()
    if as_json:
        emit({"reply": loaded.chat(messages, max_tokens=max_tokens), **notes})
        return
    for piece in loaded.chat(messages, max_tokens=max_tokens, stream=True):
        print(piece, end="", flush=True)
    print()


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


def _own(item: Any) -> dict[str, Any]:
    return {"video" if item.is_clip else "image": item}
