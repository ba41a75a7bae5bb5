"""Readers of data sets' own files: a `Format` turns one kind of file into rows; a card's `fields` make examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from vlm.datasets.readers.rows import Format
from vlm.registry import Chosen, Registry

READERS: Registry[type[Format]] = Registry(
    "format",
    {
        "jsonl": "vlm.datasets.readers.jsonfiles:Jsonl",
        "json": "vlm.datasets.readers.jsonfiles:Json",
        "coco": "vlm.datasets.readers.jsonfiles:Coco",
        "karpathy": "vlm.datasets.readers.jsonfiles:Karpathy",
        "vqa": "vlm.datasets.readers.jsonfiles:Vqa",
        "llava": "vlm.datasets.readers.jsonfiles:Llava",
        "mvbench": "vlm.datasets.readers.mvbench:MVBench",
        "csv": "vlm.datasets.readers.tables:Csv",
        "tsv": "vlm.datasets.readers.tables:Tsv",
        "parquet": "vlm.datasets.readers.tables:Parquet",
        "webdataset": "vlm.datasets.readers.shards:WebDataset",
        "folder": "vlm.datasets.readers.folders:Folder",
        "npz": "vlm.datasets.readers.arrays:Npz",
        "cifar": "vlm.datasets.readers.arrays:Cifar",
    },
)


def _named(value: Any) -> Any:
    """`format: coco` is `format: {name: coco}`."""
    return {"name": value} if isinstance(value, str) else value


AnyFormat = Annotated[Format, Chosen(READERS, key="name"), BeforeValidator(_named)]
