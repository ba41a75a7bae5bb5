"""The engines that can keep a collection, by name."""

from __future__ import annotations

from typing import Any

from vlm.index.base import Index
from vlm.index.flat import FlatIndex


class _Flat(FlatIndex, Index):
    def commit(self):
        self.save()

    def close(self):
        pass

    def snapshot(self):
        return ""

    def compact(self):
        pass

    def _matching(self, where):
        for id in list(self):
            m = self.metadata(id)
            if all(m.get(k) == v for k, v in (where or {}).items()):
                yield id

    def count(self, where=None):
        return len(list(self._matching(where)))

    def search(self, vectors, top, *, where=None, min_score=None):
        import numpy as np

        from vlm.errors import BadInput

        if not np.isfinite(vectors).all():
            raise BadInput("finite")
        ok = set(self._matching(where))
        hits = super().search(vectors, max(top, len(self), 1))
        return [[h for h in row if h.id in ok and (min_score is None or h.score >= min_score)][:top] for row in hits]

    def metadata(self, id):
        return self._metadata[self._row[id]]


ENGINES: dict[str, Any] = {"flat": _Flat, "lance": _Flat}
