"""Kept path of `vlm.datasets.readers.lazy_media`."""

from vlm.datasets.readers.lazy_media import LazyMedia as Inside

__all__ = ["Inside"]
