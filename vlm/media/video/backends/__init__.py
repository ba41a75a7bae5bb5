"""The decoders: one interface (`PyavDecoder`), a class a library."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from vlm.errors import BadInput, unknown
from vlm.registry import Registry

if TYPE_CHECKING:
    from vlm.media.video.backends.pyav import PyavDecoder

BACKENDS: Registry[type[PyavDecoder]] = Registry(
    "video backend",
    {
        "pyav": "vlm.media.video.backends.pyav:PyavDecoder",
        "sequential": "vlm.media.video.backends.pyav:SequentialDecoder",
        "decord": "vlm.media.video.backends.decord:DecordDecoder",
        "torchcodec": "vlm.media.video.backends.torchcodec:TorchcodecDecoder",
    },
)
"""Videos are decoded in a process of its own, which finds a user's backend by `VLM_MODULES` or an entry point."""
_PACKAGES = {"decord": "decord", "torchcodec": "torchcodec"}


def chosen(backend: str) -> str:
    """The backend that is meant; `auto` is exact PyAV, which no other exact decoder was measured to beat.

    Raises `BadInput` for an unknown name and for a package that is not installed.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise unknown("video backend", backend, ["auto", *BACKENDS])
    package = _PACKAGES.get(backend)
    if package and find_spec(package) is None:
        raise BadInput(f"video backend {backend!r}: expected the {package} package, got none installed; use 'pyav'")
    return "pyav" if backend == "auto" else backend


def decoder_class(backend: str) -> type[PyavDecoder]:
    return BACKENDS[chosen(backend)]
