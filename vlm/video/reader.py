"""Kept path of `vlm.media.video.reader`."""

from vlm.media.video.reader import VideoReader, open_video

__all__ = ["VideoReader", "open_video"]
