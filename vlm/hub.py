"""Kept path of `vlm.weights.hub`."""

from vlm.weights.hub import is_repository, snapshot

__all__ = ["is_repository", "snapshot"]
