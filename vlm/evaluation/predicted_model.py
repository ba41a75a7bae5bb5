"""A system known by its predictions alone, in the place of a model."""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set

from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.model_under_test import ModelUnderTest, Progress
from vlm.evaluation.predictions import Predictions
from vlm.evaluation.requests import Request


class PredictedModel(ModelUnderTest):
    """Answers as the file has them; it has no vectors, and sees nothing."""

    def __init__(self, predictions: Predictions):
        self.predictions = predictions
        self.name, self.weights, self.usage = predictions.name, predictions.weights_hash(), None
        self.address = ""

    def for_task(self, card: BenchmarkCard) -> PredictedModel:
        other = copy.copy(self)
        other.predicted = self.predictions.of(card.name)
        return other

    def answers(self, requests: Sequence[Request], progress: Progress = lambda done: None) -> list[str]:
        assert self.predicted is not None
        found = self.predicted.answers(requests)
        progress(len(found))
        return found

    def notes(self, known: Set[str] = frozenset()) -> tuple[str, ...]:
        assert self.predicted is not None
        return self.predicted.notes(known)
