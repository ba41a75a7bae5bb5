"""Eleven pictures of their own colours, embedded as their mean colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm.index.base import Vectors
from vlm.ingest.embedding import Embedded, embed_collection
from vlm.ingest.job import Job, Model
from vlm.ingest.plan import Plan, prepare
from vlm.ingest.sources import open_source
from vlm.media.open import Media

COUNT = 11


def embed(media: Sequence[Media]) -> Vectors:
    means = np.array([np.asarray(item.frames[0], np.float32).mean((0, 1)) + 1 for item in media])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def eye() -> Model:
    return Model(embed)


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (number * 20, 30, 60)).save(stream, "PNG")
    return stream.getvalue()


def plan(folder: Path, place: object, model: str = "eye", settings: dict[str, Any] | None = None) -> Plan:
    return prepare(folder, open_source(str(place), in_place=True), model, 3, settings or {}, 5)


def run(folder: Path, place: object, **options: Any) -> Embedded:
    plan(folder, place)
    return embed_collection(Job(folder, eye), **options)


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    from pyarrow import dataset

    listed = dataset.dataset(folder).to_table().to_pylist()
    assert len({row["id"] for row in listed}) == len(listed)
    return {row["id"]: row for row in listed}


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[0-9]*.parquet")}
