"""Two to four records of each data set of questions, in the files its authors publish."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from original_files import picture, pictures, put_csv, put_json, put_lines, put_parquet


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
