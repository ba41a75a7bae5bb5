"""Kept path of `vlm.evaluation.task_types.base`."""

from vlm.evaluation.task_types.base import Job, Outcome

__all__ = ["Job", "Outcome"]
