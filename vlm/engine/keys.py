"""What tells pictures, clips and models apart in an engine's caches: sha256 over what is read of them.

Every field is written with its kind and its length, so that no two lists of fields have the same bytes. Never a path or
an address: the same picture has one key wherever it came from, and another picture under the same name has another.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from functools import partial
from numbers import Integral, Real
from types import FunctionType, MethodType
from typing import Any

from PIL import Image
from pydantic import BaseModel
from torch import nn

from vlm.conversation.tokenizer import TextTokenizer
from vlm.media.open import Media
from vlm.models.processor import Layout, Processor
from vlm.models.trained import weights_hash
from vlm.models.vision_language import VisionLanguageModel

STRIP = 2**17
"""Pixels that are copied at a time."""


def picture_key(item: Media, layout: Layout, model_identity: bytes, salt: bytes) -> bytes:
    """32 bytes of a picture or clip as a model sees it: the frames' pixels in order, with mode, size and palette, their
    times, how they are laid out, and for whom (`salt`)."""
    digest = hashlib.sha256(b"vlm picture 1")
    _write(digest, (salt, model_identity, layout, item.times, item.timed, item.duration, len(item.frames)))
    for frame in item.frames:
        _write_frame(digest, frame)
    return digest.digest()


def model_identity(model: VisionLanguageModel, processor: Processor) -> bytes:
    """32 bytes of a model's weights and settings and of those of its processor. It reads all weights, about a second a
    gigabyte: to be asked once a model, and again after either was changed."""
    parts = (model.tower, model.projector, model.arrangement, model.language)
    digest = hashlib.sha256(b"vlm model 1")
    _write(digest, (weights_hash(parts), str(model.dtype), model.image_token, model.video_token))
    for part in parts:
        for name, module in part.named_modules() if part is not None else ():
            _write(digest, (name, _kind(module), _settings(module)))
    _write(digest, (_kind(processor), processor.image_token, processor.video_token, vars(processor)))
    return digest.digest()


def _settings(module: nn.Module) -> dict[str, object]:
    """What a module holds besides tensors and modules: its config, numbers such as a kernel's size or an epsilon."""
    plain = (bool, int, float, str, tuple, BaseModel)
    return {
        name: value
        for name, value in vars(module).items()
        if name != "training" and not name.startswith("_") and (isinstance(value, plain) or is_dataclass(value))
    }


def _write_frame(digest: Any, frame: Image.Image) -> None:
    palette = frame.getpalette("RGBA")
    _write(
        digest, (frame.mode, frame.size, frame.info.get("transparency"), None if palette is None else bytes(palette))
    )
    rows = max(1, STRIP // frame.width)
    for top in range(0, frame.height, rows):
        strip = frame.crop((0, top, frame.width, min(top + rows, frame.height)))
        _write(digest, strip.tobytes())


def _write(digest: Any, value: object) -> None:
    """A value as its kind, its length and its content; a module as its kind, for its tensors are written elsewhere."""
    if value is None or isinstance(value, bool):
        _framed(digest, "constant", str(value).encode())
    elif isinstance(value, Integral):
        _framed(digest, "int", str(int(value)).encode())
    elif isinstance(value, Real):
        _framed(digest, "float", struct.pack("<d", float(value)))
    elif isinstance(value, str):
        _framed(digest, "str", value.encode(errors="surrogatepass"))
    elif isinstance(value, bytes):
        _framed(digest, "bytes", value)
    elif isinstance(value, Set):
        _framed(digest, "set", b"".join(sorted(_digest(part) for part in value)))
    elif isinstance(value, Mapping):
        _framed(digest, "map", b"".join(sorted(_digest((key, content)) for key, content in value.items())))
    elif isinstance(value, Sequence):
        _framed(digest, "list", b"".join(_digest(part) for part in value))
    elif isinstance(value, BaseModel):
        _write(digest, (_kind(value), dict(value)))
    elif is_dataclass(value):
        _write(digest, (_kind(value), {field.name: getattr(value, field.name) for field in fields(value)}))
    elif isinstance(value, TextTokenizer):
        _write(digest, (_kind(value), value.to_json()))
    elif isinstance(value, nn.Module):
        _write(digest, _kind(value))
    elif isinstance(value, MethodType):
        _write(digest, (value.__self__, value.__func__.__qualname__))
    elif isinstance(value, partial):
        _write(digest, ("partial", value.func, value.args, value.keywords))
    elif isinstance(value, FunctionType):
        enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
        _write(digest, (value.__module__, value.__qualname__, value.__defaults__, enclosed))
    elif isinstance(value, type):
        _write(digest, (value.__module__, value.__qualname__))
    elif hasattr(value, "__dict__"):
        _write(digest, (_kind(value), vars(value)))
    else:
        _write(digest, (_kind(value), repr(value)))


def _digest(value: object) -> bytes:
    digest = hashlib.sha256()
    _write(digest, value)
    return digest.digest()


def _framed(digest: Any, kind: str, content: bytes) -> None:
    digest.update(f"{kind} {len(content)}:".encode())
    digest.update(content)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
