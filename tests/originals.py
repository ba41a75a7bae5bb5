"""Two to four records of each data set in the files its authors publish, with real pictures, for its card to read."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLORS = ((220, 30, 30), (30, 30, 220), (30, 200, 30), (10, 10, 10))


def picture(number: int, form: str = "PNG") -> bytes:
    """A plain picture; another number is another picture."""
    encoded = io.BytesIO()
    Image.new("RGB", (8 + number, 8), COLORS[number % 4]).save(encoded, form)
    return encoded.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        put(folder / name, picture(number, "PNG" if name.endswith("png") else "JPEG"))


def clips(folder: Path, *names: str) -> None:
    for name in names:
        put(folder / name, b"a reader of cards opens no clip")


def put_json(path: Path, content: Any) -> None:
    put(path, json.dumps(content))


def put_lines(path: Path, *rows: dict[str, Any]) -> None:
    put(path, "".join(json.dumps(row) + "\n" for row in rows))


def put_csv(path: Path, columns: str, *rows: tuple[object, ...], delimiter: str = ",") -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([columns.split(), *rows])
    put(path, text.getvalue())


def put_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


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


def vqav2(home: Path) -> None:
    _vqa(home, "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json")


def ok_vqa(home: Path) -> None:
    _vqa(home, "OpenEnded_mscoco_{}_questions.json", "mscoco_{}_annotations.json")


def _vqa(home: Path, questions: str, answers: str) -> None:
    for split in ("train2014", "val2014"):
        pictures(home / split, f"COCO_{split}_000000262148.jpg")
        asked = [
            {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
            {"image_id": 262148, "question": "Is it day?", "question_id": 262148001},
        ]
        given = [
            {
                "question_id": question["question_id"],
                "image_id": 262148,
                "answer_type": "other",
                "question_type": "where is",
                "multiple_choice_answer": "down",
                "answers": [{"answer": "down", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)],
            }
            for question in reversed(asked)
        ]
        put_json(home / questions.format(split), {"data_subtype": split, "questions": asked})
        put_json(home / answers.format(split), {"data_subtype": split, "annotations": given})


def gqa(home: Path) -> None:
    pictures(home / "images", "n161313.jpg")
    types = {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"}
    row = {"imageId": "n161313", "question": "Is it red?", "answer": "no", "fullAnswer": "No.", "types": types}
    for split in ("train", "val", "testdev"):
        put_json(home / f"{split}_balanced_questions.json", {"201307251": row, "201307252": row})


def textvqa(home: Path) -> None:
    pictures(home / "train_images", "003a8ae2ef43b901.jpg")
    row = {"image_id": "003a8ae2ef43b901", "question": "what is the brand?", "answers": ["nokia"] * 10}
    for split in ("train", "val"):
        data = [{**row, "question_id": number} for number in (34602, 34603)]
        put_json(home / f"TextVQA_0.5.1_{split}.json", {"dataset_type": split, "data": data})


def docvqa(home: Path) -> None:
    pictures(home / "documents", "pybv0228_81.png")
    row = {"question": "What is the date?", "image": "documents/pybv0228_81.png", "answers": ["8 May", "May 8"]}
    for split in ("train", "val"):
        data = [{**row, "questionId": number} for number in (24581, 24582)]
        put_json(home / f"{split}_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data": data})


def chartqa(home: Path) -> None:
    for split in ("train", "val", "test"):
        pictures(home / split / "png", "41699051005347.png")
        row = {"imgname": "41699051005347.png", "query": "How many bars?", "label": "14"}
        put_json(home / split / f"{split}_human.json", [row, {**row, "query": "Is it 3?", "label": "No"}])
        put_json(home / split / f"{split}_augmented.json", [row])


def vizwiz(home: Path) -> None:
    for split in ("train", "val"):
        name = f"VizWiz_{split}_00000000.jpg"
        pictures(home / split, name)
        answers = [{"answer_confidence": "yes", "answer": "unanswerable"}] * 10
        row = {"image": name, "question": "What is this?", "answers": answers, "answer_type": "unanswerable"}
        put_json(home / "Annotations" / f"{split}.json", [row])


def pope(home: Path) -> None:
    pictures(home / "val2014", "COCO_val2014_000000310196.jpg")
    row = {"image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?"}
    for part in ("random", "popular", "adversarial"):
        rows = [{"question_id": 1, **row, "label": "yes"}, {"question_id": 2, **row, "label": "no"}]
        put_lines(home / f"coco/coco_pope_{part}.json", *rows)


def scienceqa(home: Path) -> None:
    row = {
        "question": "Which is red?",
        "choices": ["left", "right"],
        "answer": 1,
        "hint": "Look.",
        "image": "image.png",
    }
    more = {"subject": "natural science", "topic": "physics", "grade": "grade2"}
    rows = {str(n): {**row, **more, "split": split} for n, split in enumerate(["train", "val", "test"], 1)}
    for number, found in rows.items():
        pictures(home / str(found["split"]) / number, "image.png")
    put_json(home / "problems.json", {**rows, "4": {**row, **more, "split": "test", "image": None}})


def mmmu(home: Path) -> None:
    for split in ("dev", "validation"):
        for subject in ("Accounting", "Physics"):
            put_parquet(
                home / subject / f"{split}-00000-of-00001.parquet", [_mmmu(split, subject, n) for n in range(3)]
            )


def _mmmu(split: str, subject: str, number: int) -> dict[str, Any]:
    """The second has two pictures, the third is an open question."""
    hub = [{"bytes": picture(number + n), "path": f"{n}.png"} for n in range(2)]
    return {
        "id": f"{split}_{subject}_{number}",
        "question": "<image 1> What is it?",
        "options": "[]" if number == 2 else "['$6', \"it's $7\", '$8']",
        "question_type": "open" if number == 2 else "multiple-choice",
        "answer": "6" if number == 2 else "B",
        "subfield": "Managerial",
        "topic_difficulty": "Easy",
        "image_1": hub[0],
        "image_2": hub[1] if number == 1 else None,
        **{f"image_{n}": None for n in range(3, 8)},
    }


def mmbench(home: Path) -> None:
    """The last row repeats the first with its options turned, and its picture is the first's number."""
    image = [base64.b64encode(picture(n)).decode() for n in range(2)]
    put_csv(
        home / "MMBench_DEV_EN.tsv",
        "index question hint A B C D answer category image source l2-category comment split",
        (241, "Which is it?", "Look\tclosely.", "one", "two", "three", "four", "A", "c", image[0], "s", "a", "", "dev"),
        (252, 'Is it "red"?', "", "yes", "no", "", "", "B", "c", image[1], "s", "a", "", "dev"),
        (1000241, "Which is it?", "", "two", "three", "four", "one", "D", "c", "241", "s", "a", "", "dev"),
        delimiter="\t",
    )  # fmt: skip


def mmstar(home: Path) -> None:
    image = base64.b64encode(picture(0, "JPEG")).decode()
    rows = [(n, "Which one?", "a", "b", "c", "d", "C", "math", "geometry", image, "MathVista") for n in range(2)]
    put_csv(
        home / "MMStar.tsv", "index question A B C D answer category l2_category image bench", *rows, delimiter="\t"
    )


def easy_vqa(home: Path) -> None:
    for split in ("train", "test"):
        pictures(home / split / "images", "0.png", "1.png")
        put_json(home / split / "questions.json", [["what is the red shape?", "triangle", 0], ["is it red?", "no", 1]])


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
}  # fmt: skip
"""Data set -> what writes its files into a folder."""
