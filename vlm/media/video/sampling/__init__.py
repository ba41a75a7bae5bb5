"""Which frames of a video a model sees, and when each was: a config a way, one small file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import yaml
from PIL import Image

from vlm import config
from vlm.config import Config
from vlm.errors import BadInput, unknown
from vlm.media.video.reader import DEADLINE, VideoReader, open_video
from vlm.media.video.sampling.adaptive import Adaptive
from vlm.media.video.sampling.base import Sampler
from vlm.media.video.sampling.keyframes import Keyframes
from vlm.media.video.sampling.rate import Rate
from vlm.media.video.sampling.scenes import Scenes
from vlm.media.video.sampling.segments import Segments
from vlm.media.video.sampling.uniform import Uniform
from vlm.registry import Chosen, Registry

__all__ = [
    "SAMPLERS", "Adaptive", "Clip", "Keyframes", "Rate", "Sampler", "Sampling", "Scenes", "Segments", "Uniform",
    "load_clip", "parse_sampling", "sample",
]  # fmt: skip

SAMPLERS: Registry[type[Sampler]] = Registry(
    "sampling",
    {
        "uniform": "vlm.media.video.sampling.uniform:Uniform",
        "rate": "vlm.media.video.sampling.rate:Rate",
        "segments": "vlm.media.video.sampling.segments:Segments",
        "keyframes": "vlm.media.video.sampling.keyframes:Keyframes",
        "scenes": "vlm.media.video.sampling.scenes:Scenes",
        "adaptive": "vlm.media.video.sampling.adaptive:Adaptive",
    },
)
Sampling: TypeAlias = Annotated[Sampler, Chosen(SAMPLERS)]


@dataclass(frozen=True)
class Clip:
    """Frames of one video in order of time; `times[i]` is frame i's own presentation time in seconds."""

    frames: list[Image.Image]
    times: list[float]
    source: str
    duration: float | None = None
    """Of the whole video in seconds, where it is known."""
    notes: tuple[str, ...] = ()
    """What is left out or changed of what the file holds, a line each."""


class _Named(Config):
    sampling: Sampling


def parse_sampling(text: str, frames: int | None = None) -> Sampler:
    """`KIND` or `KIND:key=value,key=value` as a config, with `frames` over its own number. Raises `BadInput`."""
    kind, _, rest = text.partition(":")
    if kind not in SAMPLERS:
        raise unknown("sampling", kind, SAMPLERS)
    data: dict[str, object] = {"kind": kind}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput(f"sampling {text!r}: expected KIND:key=value,key=value, got {item!r}")
        data[key.strip()] = _value(value, text)
    found = config.parse(_Named, {"sampling": data}, f"sampling {text!r}").sampling
    return found if frames is None else found.with_frames(frames)


def _value(value: str, text: str) -> object:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInput(f"sampling {text!r}: expected a number or word, got {value!r}") from None


def sample(reader: VideoReader, sampling: Sampler, rng: np.random.Generator | None = None) -> Clip:
    """The frames that `sampling` picks, each with its time. `rng` is for training: those that can, vary."""
    indices = sampling.pick(reader, rng)
    times = [float(reader.times_N[index]) for index in indices]
    frames = reader.frames(indices)
    return Clip(frames, times, str(reader.path), reader.duration, tuple(reader.notes))


def load_clip(
    path: str | Path,
    n: int = 4,
    *,
    sampling: Sampler | None = None,
    backend: str = "auto",
    deadline: float = DEADLINE,
    rng: np.random.Generator | None = None,
) -> Clip:
    """`n` frames spread evenly over the video at `path`, or those that `sampling` picks.

    Raises `BadInput` where it cannot be read as a video.
    """
    sampling = sampling or Uniform().with_frames(n)
    with open_video(path, backend, deadline=deadline) as reader:
        return sample(reader, sampling, rng)
