"""Kept path of `vlm.media.urls`."""

from vlm.media.urls import fetch_url, is_url

__all__ = ["fetch_url", "is_url"]
