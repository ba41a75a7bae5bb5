"""Two to four records of each data set in the files its authors publish, with real pictures, for its card to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import original_recent
from original_files import clips, pictures, put, put_csv, put_json, put_lines
from original_questions import (
    chartqa,
    docvqa,
    easy_vqa,
    gqa,
    mmbench,
    mmmu,
    mmstar,
    ok_vqa,
    pope,
    scienceqa,
    textvqa,
    vizwiz,
    vqav2,
)


def flickr30k(home: Path) -> None:
    _karpathy(home / "dataset_flickr30k.json", home / "flickr30k-images", {})


def coco_karpathy(home: Path) -> None:
    _karpathy(home / "dataset_coco.json", home / "val2014", {"filepath": "val2014", "cocoid": 391895})


def _karpathy(path: Path, images: Path, more: dict[str, Any]) -> None:
    rows = []
    for number, split in enumerate(["train", "val", "test", "test"]):
        pictures(images, f"{number}.jpg")
        sentences = [{"raw": f"A picture of {number}.", "tokens": ["a"]}, {"raw": "A second.", "tokens": ["a"]}]
        own = {key: value + number if isinstance(value, int) else value for key, value in more.items()}
        rows.append({"imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": sentences, **own})
    put_json(path, {"images": rows, "dataset": "tiny"})


def coco_captions(home: Path) -> None:
    for split in ("train2017", "val2017"):
        _coco(home / f"annotations/captions_{split}.json", home / split, {})


def nocaps(home: Path) -> None:
    _coco(home / "nocaps_val_4500_captions.json", home / "validation", {"domain": "out-domain"})


def _coco(path: Path, images: Path, more: dict[str, Any]) -> None:
    pictures(images, "000000000139.jpg", "000000000285.jpg")
    files = [{"id": 139, "file_name": "000000000139.jpg"}, {"id": 285, "file_name": "000000000285.jpg"}]
    captions = [(139, "A room."), (285, "A bear."), (139, "A table and a chair.")]
    rows = [{"id": n, "image_id": image, "caption": caption} for n, (image, caption) in enumerate(captions)]
    put_json(path, {"info": {}, "images": [{**file, **more} for file in files], "annotations": rows})


def imagenet_1k(home: Path) -> None:
    for number in range(1000):
        (home / "val" / f"n{number:08d}").mkdir(parents=True)
    pictures(home / "val" / "n00000001", "ILSVRC2012_val_00000262.JPEG")
    pictures(home / "val" / "n00000999", "ILSVRC2012_val_00000001.JPEG")


def cifar10(home: Path) -> None:
    rng = np.random.default_rng(0)
    for name, labels in (("data_batch_1.bin", (6, 9)), ("data_batch_2.bin", (1,)), ("test_batch.bin", (3, 8))):
        pixels = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        put(home / name, b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True)))


def pneumoniamnist(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.array([[1], [0], [1]], np.uint8)
    np.savez(home / "pneumoniamnist.npz", **arrays)


def msrvtt_1ka(home: Path) -> None:
    clips(home / "videos", "video7020.mp4", "video7021.mp4")
    rows = [(f"ret{n}", f"msr{n}", f"video{n}", f"a woman, number {n}") for n in (7020, 7021)]
    put_csv(home / "MSRVTT_JSFUSION_test.csv", "key vid_key video_id sentence", *rows)


def msrvtt(home: Path) -> None:
    clips(home / "videos", "video7020.mp4", "video7021.mp4")
    videos = [{"video_id": f"video{n}", "split": "test", "category": 9, "url": "none"} for n in (7020, 7021)]
    sentences = [
        {"video_id": f"video{n}", "caption": f"{m} of {n}", "sen_id": n * m} for m in (1, 2) for n in (7020, 7021)
    ]
    put_json(home / "test_videodatainfo.json", {"videos": videos, "sentences": sentences})


def msvd(home: Path) -> None:
    clips(home / "videos", "fWutDQy1nnY_29_35.avi")
    row = {"video_id": "fWutDQy1nnY_29_35", "video": "fWutDQy1nnY_29_35.avi", "caption": ["a man runs", "he runs"]}
    for split in ("train", "val", "test"):
        put_json(home / f"msvd_{split}.json", [row])


def vatex(home: Path) -> None:
    clips(home / "videos", "G9zN5TTuGO4_000179_000189.mp4")
    row = {"videoID": "G9zN5TTuGO4_000179_000189", "enCap": ["One.", "Two."], "chCap": []}
    put_json(home / "vatex_public_test_english_v1.1.json", [row])


def next_qa(home: Path) -> None:
    clips(home / "videos", "4010069381.mp4")
    row = (
        4010069381,
        369,
        640,
        480,
        "how do the men play",
        0,
        6,
        "CH",
        "roll",
        "tap, twice",
        "strum",
        "hit",
        "pat",
    )
    for split in ("val", "test"):
        columns = "video frame_count width height question answer qid type a0 a1 a2 a3 a4"
        put_csv(home / f"{split}.csv", columns, row, (*row[:5], 4, 7, "TN", *row[8:]))


def qvhighlights(home: Path) -> None:
    clips(home / "videos", "NUsG9BgSes0_210.0_360.0.mp4")
    row = {
        "qid": 2579,
        "query": "A girl cooks.",
        "duration": 150,
        "vid": "NUsG9BgSes0_210.0_360.0",
        "relevant_windows": [[82, 86], [100, 150]],
        "relevant_clip_ids": [41, 42],
        "saliency_scores": [[1, 1, 2], [1, 1, 3]],
    }
    for split in ("val_release", "test_with_gt"):
        put_lines(home / f"highlight_{split}.jsonl", row, {**row, "qid": 2580})


WRITERS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        flickr30k, coco_karpathy, coco_captions, nocaps, vqav2, ok_vqa, gqa, textvqa, docvqa, chartqa, vizwiz, pope,
        scienceqa, mmmu, mmbench, mmstar, easy_vqa, imagenet_1k, cifar10, pneumoniamnist, msrvtt_1ka, msrvtt, msvd,
        vatex, next_qa, qvhighlights,
    )
} | original_recent.WRITERS  # fmt: skip
"""Data set -> what writes its files into a folder."""
