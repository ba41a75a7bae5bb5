"""Kept path of `vlm.models.dual_encoders`."""

from vlm.models.dual_encoders import identity, load_pair

__all__ = ["identity", "load_pair"]
