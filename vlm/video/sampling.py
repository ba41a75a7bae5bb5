"""Kept path of `vlm.media.video.sampling`."""

from vlm.media.video.sampling import (
    Adaptive,
    Clip,
    Keyframes,
    Rate,
    Scenes,
    Segments,
    Uniform,
    load_clip,
    parse_sampling,
)

__all__ = ["Adaptive", "Clip", "Keyframes", "Rate", "Scenes", "Segments", "Uniform", "load_clip", "parse_sampling"]
