"""Kept path of `vlm.evaluation.model_under_test`."""

from vlm.evaluation.model_under_test import ModelUnderTest as Subject
from vlm.evaluation.model_under_test import Request as Ask

__all__ = ["Ask", "Subject"]
