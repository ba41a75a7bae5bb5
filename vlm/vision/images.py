"""Kept path of `vlm.media.images`."""

from vlm.media.folders import list_media
from vlm.media.images import load_image
from vlm.media.kinds import is_image, is_video

__all__ = ["is_image", "is_video", "list_media", "load_image"]
