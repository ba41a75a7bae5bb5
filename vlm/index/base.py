"""What every index is: ids, unit vectors and metadata of one model's space, whatever engine keeps them.

N entries, Q queries, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput

Vectors = NDArray[np.float32]
Metadata = Mapping[str, Any]
"""JSON: texts, numbers, true and false, null, lists and objects of them."""
Where = Mapping[str, Any]
"""A filter, as `vlm.index.filters.matches` reads it."""


@dataclass(frozen=True)
class Hit:
    """An entry and the inner product of its vector with the query."""

    id: str
    score: float
    metadata: Metadata


class Index(ABC):
    """One model's entries. What `commit` has returned for survives a kill; whether more does is the engine's affair."""

    model: str
    width: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Every id."""

    @abstractmethod
    def __contains__(self, id: object) -> bool: ...

    @abstractmethod
    def metadata(self, id: str) -> Metadata:
        """Raises `KeyError` for an unknown id."""

    @abstractmethod
    def vector(self, id: str) -> Vectors:
        """float32 `[D]`. Raises `KeyError` for an unknown id."""

    @abstractmethod
    def items(self) -> Iterator[tuple[str, Metadata]]:
        """Every id with its metadata."""

    @abstractmethod
    def known(self, ids: Sequence[str]) -> dict[str, Metadata]:
        """The metadata of those that are there, at once."""

    @abstractmethod
    def vectors(self) -> tuple[list[str], Vectors]:
        """Every id, and float32 `[N, D]` in the same order."""

    @abstractmethod
    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata] | None = None) -> None:
        """Add entries, or replace those whose id is known. `vectors` is `[len(ids), D]`, of unit length.

        Raises `BadInput` for counts, a width or a length that does not fit; nothing is changed then.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Remove entries; returns how many there were. Unknown ids are passed over."""

    @abstractmethod
    def search(
        self, vectors: Vectors, top: int, *, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        """The `top` nearest entries of each query `[Q, D]`, best first, of those that match `where`.

        Raises `BadInput` for another width, a vector that is not finite, or a filter that cannot be read.
        """

    def search_hybrid(self, vector: Vectors, text: str, top: int, *, where: Where | None = None) -> list[Hit]:
        """By a vector `[D]` and by the words of the metadata's `text`; scores are of the joined order.

        Raises `BadInput` where the engine keeps no index of words: LanceDB does.
        """
        raise BadInput(
            f"search by words too: expected an index of LanceDB (vlm index --engine lance), got {type(self).__name__}"
        )

    @abstractmethod
    def count(self, where: Where | None = None) -> int:
        """Entries that match."""

    @abstractmethod
    def commit(self) -> None:
        """Make what was changed durable."""

    @abstractmethod
    def snapshot(self) -> str:
        """Commit, and give the name of the state, which `open` can go back to until `compact`."""

    @abstractmethod
    def snapshots(self) -> list[str]:
        """The names of those there are, the oldest first."""

    @abstractmethod
    def drop_snapshot(self, name: str) -> None:
        """What it alone still has is given back. Raises `KeyError` where there is no such snapshot."""

    @abstractmethod
    def compact(self) -> None:
        """Give back the room of replaced and deleted entries, and drop snapshots."""

    @abstractmethod
    def close(self) -> None: ...
