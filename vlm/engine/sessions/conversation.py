"""A conversation as tensors, to the last pixel: its messages as JSON, its pictures and clips as decoded frames.

Frames are kept raw, since what is known of a picture is known by its pixels: `[bytes]` uint8, a frame behind the other,
RGB. What a file says of itself is checked before a frame is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from vlm import config
from vlm.config import Config
from vlm.conversation.messages import Conversation, Message, Part
from vlm.conversation.texts import check_characters
from vlm.errors import BadInput
from vlm.media.open import Media

NAME = "conversation"
CHANNELS = 3
SIDE = 2**20
"""Pixels of a frame, across and down, at the most."""


class SavedPart(Config):
    type: Literal["text", "image", "video"]
    text: str = ""
    media: NonNegativeInt | None = None
    """A picture's or clip's number among the file's."""


class SavedMessage(Config):
    role: Literal["system", "user", "assistant"]
    content: tuple[SavedPart, ...]


class SavedMedia(Config):
    """What `Media` has beside its pixels."""

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(min_length=1)
    """Width and height of each frame."""
    times: tuple[FiniteFloat, ...] = ()
    duration: FiniteFloat | None = None
    timed: bool = True
    source: str = ""
    notes: tuple[str, ...] = ()


class Saved(Config):
    messages: tuple[SavedMessage, ...] = Field(min_length=1)
    media: tuple[SavedMedia, ...] = ()


def frames_name(number: int) -> str:
    return f"media.{number}.frames"


def tensors_of(said: Conversation, keys: Sequence[Hashable]) -> tuple[dict[str, Tensor], list[int]]:
    """A conversation whose pictures and clips are open, those of one key once, and the number of each.

    Raises `BadInput` for frames that are not RGB, which nothing that opens pictures gives.
    """
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    of = [numbers[key] for key in keys]
    distinct = {number: item for number, item in zip(of, said.media, strict=True)}
    places = iter(of)
    messages = [
        {"role": message.role, "content": [_part(part, places) for part in message.parts]} for message in said.messages
    ]
    saved = {"messages": messages, "media": [_about(distinct[number]) for number in sorted(distinct)]}
    tensors = {frames_name(number): _pixels(item) for number, item in distinct.items()}
    return {NAME: torch.frombuffer(bytearray(json.dumps(saved).encode()), dtype=torch.uint8), **tensors}, of


def conversation_of(tensors: Mapping[str, Tensor], where: str) -> tuple[Conversation, list[int]]:
    """What `tensors_of` was given, and the number of each picture and clip. Raises `BadInput`."""
    saved = config.parse(Saved, _json(tensors, where), where)
    media = [_media(item, tensors, frames_name(number), where) for number, item in enumerate(saved.media)]
    of = [part.media for message in saved.messages for part in message.content if part.type != "text"]
    if any(number is None or number >= len(media) for number in of):
        raise BadInput(f"{where}: expected pictures and clips by their numbers below {len(media)}, got {of[:5]}")
    numbers = [number for number in of if number is not None]
    if set(numbers) != set(range(len(media))):
        raise BadInput(f"{where}: expected {len(media)} pictures and clips to be shown, got {len(set(numbers))}")
    messages = []
    for message in saved.messages:
        for part in message.content:
            check_characters(part.text, where)
        messages.append(Message(message.role, tuple(Part(part.type, part.text) for part in message.content)))
    return Conversation(tuple(messages), tuple(media[number] for number in numbers)), numbers


def as_messages(said: Conversation, shown: Callable[[Media, str], Any]) -> list[dict[str, Any]]:
    """Messages with parts; `shown` makes that of a picture or clip, of its kind."""
    media = iter(said.media)
    return [
        {"role": message.role, "content": [
            {"type": "text", "text": part.text} if part.kind == "text" else shown(next(media), part.kind)
            for part in message.parts
        ]}
        for message in said.messages
    ]  # fmt: skip


def _part(part: Part, places: Any) -> dict[str, Any]:
    return {"type": "text", "text": part.text} if part.kind == "text" else {"type": part.kind, "media": next(places)}


def _about(item: Media) -> dict[str, Any]:
    return {
        "sizes": [frame.size for frame in item.frames], "times": [float(time) for time in item.times],
        "duration": None if item.duration is None else float(item.duration), "timed": item.timed,
        "source": item.source, "notes": item.notes,
    }  # fmt: skip


def _pixels(item: Media) -> Tensor:
    strange = next((frame.mode for frame in item.frames if frame.mode != "RGB"), None)
    if strange is not None:
        raise BadInput(f"{item.source or 'a picture'}: expected frames in RGB to be saved, got mode {strange}")
    return torch.from_numpy(np.concatenate([np.asarray(frame, np.uint8).reshape(-1) for frame in item.frames]))


def _json(tensors: Mapping[str, Tensor], where: str) -> Any:
    if NAME not in tensors or tensors[NAME].dtype != torch.uint8:
        raise BadInput(f"{where}: expected a tensor {NAME} of bytes, got {'another' if NAME in tensors else 'none'}")
    try:
        return json.loads(tensors[NAME].flatten().numpy().tobytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: {NAME}: not JSON: {' '.join(str(error).split())[:120]}") from None


def _media(saved: SavedMedia, tensors: Mapping[str, Tensor], name: str, where: str) -> Media:
    counts = [CHANNELS * width * height for width, height in saved.sizes]
    pixels = tensors.get(name)
    if pixels is None or pixels.dtype != torch.uint8 or list(pixels.shape) != [sum(counts)]:
        got = "none" if pixels is None else f"{str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}"
        raise BadInput(f"{where}: {name}: expected uint8 [{sum(counts)}], got {got}")
    if saved.times and len(saved.times) != len(counts):
        raise BadInput(f"{where}: {name}: expected {len(counts)} times, got {len(saved.times)}")
    if max(max(size) for size in saved.sizes) > SIDE:
        raise BadInput(f"{where}: {name}: expected frames of at most {SIDE} pixels a side, got {max(saved.sizes)}")
    frames = [
        Image.fromarray(part.numpy().reshape(height, width, CHANNELS))
        for part, (width, height) in zip(pixels.split(counts), saved.sizes, strict=True)
    ]
    return Media(tuple(frames), saved.times, saved.source, saved.notes, saved.duration, saved.timed)
