"""The decoders: one interface (`PyavDecoder`), a class a library."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Literal

from vlm.errors import BadInput

if TYPE_CHECKING:
    from vlm.media.video.backends.pyav import PyavDecoder

Backend = Literal["auto", "pyav", "sequential", "decord", "torchcodec"]

_CLASSES = {
    "pyav": "vlm.media.video.backends.pyav:PyavDecoder",
    "sequential": "vlm.media.video.backends.pyav:SequentialDecoder",
    "decord": "vlm.media.video.backends.decord:DecordDecoder",
    "torchcodec": "vlm.media.video.backends.torchcodec:TorchcodecDecoder",
}
_PACKAGES = {"decord": "decord", "torchcodec": "torchcodec"}


def chosen(backend: str) -> str:
    """The backend that is meant; `auto` is exact PyAV, which no other exact decoder was measured to beat.

    Raises `BadInput` for an unknown name and for a package that is not installed.
    """
    if backend != "auto" and backend not in _CLASSES:
        raise BadInput(f"video backend {backend!r}: expected auto, {', '.join(_CLASSES)}")
    package = _PACKAGES.get(backend)
    if package and importlib.util.find_spec(package) is None:
        raise BadInput(f"video backend {backend!r}: expected the {package} package, got none installed; use 'pyav'")
    return "pyav" if backend == "auto" else backend


def decoder_class(backend: str) -> type[PyavDecoder]:
    module, name = _CLASSES[chosen(backend)].split(":")
    found: type[PyavDecoder] = getattr(importlib.import_module(module), name)
    return found
