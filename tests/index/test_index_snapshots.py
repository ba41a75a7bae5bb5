"""Snapshots of every engine: kept, listed, opened and dropped by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from test_engines import filled, unit

from vlm.errors import BadInput

if TYPE_CHECKING:
    from conftest import Engine

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


def test_snapshots_are_listed_and_dropped_one_by_one(engine: Engine) -> None:
    index = filled(engine, 6)
    assert index.snapshots() == []
    names = []
    for count in range(12):  # more than there are one-digit numbers
        index.upsert([f"new {count}"], unit(1))
        names.append(index.snapshot())
    assert index.snapshots() == names
    index.drop_snapshot(names[3])
    for gone in (names[3], "none"):
        with pytest.raises(KeyError):
            index.drop_snapshot(gone)
        with pytest.raises(BadInput):
            engine.again(snapshot=gone)
    assert index.snapshots() == [*names[:3], *names[4:]]
    assert [len(engine.again(snapshot=name)) for name in (names[2], names[4])] == [9, 11]
    assert len(index) == 18
    index.close()
    assert engine.again().snapshots() == [*names[:3], *names[4:]]
