"""Kept path of `vlm.vision.content_tiling`."""

from vlm.vision.content_tiling import TilingConfig
from vlm.vision.content_tiling import choose_views as chosen

__all__ = ["TilingConfig", "chosen"]
