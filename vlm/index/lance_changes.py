"""What was changed since the last commit, gathered so that a commit is one or two versions of the table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from vlm.index.base import Vectors
from vlm.index.lance_table import any_of, rows
from vlm.index.lance_upkeep import patient

STATEMENT = 5000
"""Ids that one statement names."""


class Changes:
    """Of one table. Written entries that were known are replaced."""

    def __init__(self, table: Any, model: str):
        self._table, self._model = table, model
        self._upserted: dict[str, tuple[Vectors, str]] = {}
        self._deleted: dict[str, None] = {}

    def upsert(self, ids: Sequence[str], vectors: Vectors, texts: Sequence[str]) -> None:
        for id, vector, text in zip(ids, vectors, texts, strict=True):
            self._upserted[id] = vector.copy(), text
            self._deleted.pop(id, None)

    def delete(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._upserted.pop(id, None)
            self._deleted[id] = None

    def write(self) -> tuple[int, int]:
        """Make them durable; how many rows were written, and how many deleted. They stay where that fails."""
        written = gone = 0
        while self._deleted:
            some = list(self._deleted)[:STATEMENT]
            gone += patient(partial(self._table.delete, any_of(some))).num_deleted_rows
            self._deleted = dict.fromkeys(list(self._deleted)[STATEMENT:])
        if self._upserted:
            ids, entries = list(self._upserted), list(self._upserted.values())
            vectors, texts = np.stack([vector for vector, _ in entries]), [text for _, text in entries]
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            patient(partial(merge.execute, rows(ids, vectors, texts, self._model)))
            written, self._upserted = len(ids), {}
        return written, gone
