"""Readers of data sets' own files: a `Format` turns one kind of file into rows; a card's `fields` make examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vlm.datasets.readers.arrays import Cifar, Npz
from vlm.datasets.readers.folders import Folder
from vlm.datasets.readers.jsonfiles import Coco, Json, Jsonl, Karpathy, Llava, Vqa
from vlm.datasets.readers.shards import WebDataset
from vlm.datasets.readers.tables import Csv, Parquet, Tsv


def _named(value: Any) -> Any:
    """`format: coco` is `format: {name: coco}`."""
    return {"name": value} if isinstance(value, str) else value


AnyFormat = Annotated[
    Annotated[
        Jsonl | Json | Coco | Karpathy | Vqa | Llava | Csv | Tsv | Parquet | WebDataset | Folder | Npz | Cifar,
        Field(discriminator="name"),
    ],
    BeforeValidator(_named),
]
