"""An example's picture or clip, opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.media.open import Media, open_media

if TYPE_CHECKING:
    from vlm.media.video.sampling.base import Sampler


def open_example(example: Example, sampling: Sampler | None = None) -> Media:
    """The picture or clip of an example, of a clip what `sampling` picks. Raises `BadInput` naming the file."""
    if example.frames:
        frames = tuple(open_media(frame).frames[0] for frame in example.frames)
        # Frames that come as pictures have no times of their own; their order stands in.
        return Media(frames, tuple(float(i) for i in range(len(frames))), source=str(example.video), timed=False)
    source = example.image if example.image is not None else example.video
    if source is None:
        raise BadInput(f"example {example.id}: no picture and no video")
    return open_media(source, sampling)


def open_pictures(example: Example, sampling: Sampler | None = None) -> tuple[Media, ...]:
    """What a question is about: several pictures, each by itself, or the one picture or clip. Raises `BadInput`."""
    if len(example.frames) > 1 and example.video is None:
        return tuple(open_media(frame) for frame in example.frames)
    return (open_example(example, sampling),)
