"""Kept path of `vlm.conversation.budget`."""

from vlm.conversation.budget import PictureTokens, TokenBudget

__all__ = ["PictureTokens", "TokenBudget"]
