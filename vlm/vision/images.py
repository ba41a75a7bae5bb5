"""Kept path of `vlm.media.images`."""

from vlm.media.images import is_image, is_video, list_media, load_image

__all__ = ["is_image", "is_video", "list_media", "load_image"]
