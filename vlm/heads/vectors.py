"""Kept path of `vlm.vectors`."""

from vlm.vectors import composed, near_groups, shortened

__all__ = ["composed", "near_groups", "shortened"]
