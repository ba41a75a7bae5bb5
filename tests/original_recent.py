"""Two or three records of recent benchmarks, in the files their authors publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from original_files import clips, picture, pictures, put_json, put_parquet


def _hub(number: int) -> dict[str, Any]:
    return {"bytes": picture(number), "path": f"{number}.png"}


def mmmu_pro(home: Path) -> None:
    row = {
        "question": "What does <image 1> show?",
        "options": "['$1', '$2', '$3', '$4', '$5', '$6', '$7', '$8', '$9', '$10']",
        "explanation": "?",
        "img_type": "['Tables']",
        "answer": "J",
        "topic_difficulty": "Medium",
        "subject": "History",
        "image_1": _hub(0),
    }
    for part in range(2):
        rows = [{"id": f"test_History_{part}", **row, "image_2": _hub(1) if part else None,
                 **{f"image_{n}": None for n in range(3, 8)}}]  # fmt: skip
        put_parquet(home / f"standard (10 options)/test-0000{part}-of-00002.parquet", rows)
    mmmu_pro_vision(home)


def mmmu_pro_vision(home: Path) -> None:
    row = {"id": "test_History_0", "image": _hub(2), "options": "['$1', '$2']", "answer": "B", "subject": "History"}
    put_parquet(home / "vision/test-00000-of-00004.parquet", [row])


def mathvista(home: Path) -> None:
    pictures(home / "images", "1.jpg", "2.jpg", "3.jpg")
    about = {"split": "testmini", "category": "math-targeted-vqa", "task": "geometry problem solving", "grade": "x"}
    free = {
        "question": "How long is it?", "image": "images/1.jpg", "choices": None, "unit": "m", "precision": 1.0,
        "answer": "1.2", "question_type": "free_form", "answer_type": "float", "pid": "1", "metadata": about,
        "query": "Hint: Please answer with one decimal place.\nQuestion: How long is it? (Unit: m)",
    }  # fmt: skip
    choice = {
        **free, "image": "images/2.jpg", "choices": ["3/11", "8/11"], "answer": "8/11", "question_type": "multi_choice",
        "answer_type": "text", "pid": "2", "unit": None, "precision": None,
    }  # fmt: skip
    listed = {**free, "image": "images/3.jpg", "answer": "[0, 8]", "answer_type": "list", "pid": "3"}
    put_json(home / "data/testmini.json", {"1": free, "2": choice, "3": listed})


def ocrbench(home: Path) -> None:
    pictures(home / "OCRBench_Images", "IIIT5K/1.png", "docVQA/1.png", "HME100k/1.jpg")
    kinds = {
        "IIIT5K/1.png": ("IIIT5K", "Regular Text Recognition", "CENTRE"),
        "docVQA/1.png": ("docVQA", "Doc-oriented VQA", ["8 May", "May 8"]),
        "HME100k/1.jpg": ("HME100k", "Handwritten Mathematical Expression Recognition", "\\frac { 1 } { 2 }"),
    }
    rows = [
        {"dataset_name": name, "image_path": path, "question": "what is written in the image?", "answers": answer,
         "type": kind, "id": number}
        for number, (path, (name, kind, answer)) in enumerate(kinds.items())
    ]  # fmt: skip
    put_json(home / "OCRBench.json", rows)


def ai2d(home: Path) -> None:
    row = {"question": "which is the sun?", "options": ["A", "B", "C", "D"], "answer": "2", "image": _hub(0)}
    put_parquet(home / "data/test-00000-of-00001.parquet", [row, {**row, "options": ["a leaf", "b", "c", "d"]}])


def realworldqa(home: Path) -> None:
    question = "Which way?\nA. Left\nB. Right\nPlease answer directly with only the letter of the correct option."
    for part in range(2):
        put_parquet(home / f"data/test-0000{part}-of-00002.parquet",
                    [{"image": _hub(part), "question": question, "answer": "B"}])  # fmt: skip


def hallusionbench(home: Path) -> None:
    pictures(home / "hallusion_bench/VD/illusion", "0_0.png", "0_1.png")
    row = {
        "category": "VD", "subcategory": "illusion", "visual_input": "1", "set_id": "0", "figure_id": "0",
        "sample_note": "circle", "question_id": "0", "question": "Is the right circle the same size as the left?",
        "gt_answer_details": "It is the same.", "gt_answer": "1", "filename": "./hallusion_bench/VD/illusion/0_0.png",
    }  # fmt: skip
    other = {**row, "figure_id": "1", "gt_answer": "0", "filename": "./hallusion_bench/VD/illusion/0_1.png"}
    bare = {**row, "category": "VS", "visual_input": "0", "filename": None}
    put_json(home / "HallusionBench.json", [row, {**row, "question_id": "1", "gt_answer": "0"}, other, bare])


def mm_vet(home: Path) -> None:
    pictures(home / "images", "v1_0.png", "v1_1.png")
    about = {"imagesource": "https://", "capability": ["ocr", "math"]}
    rows = {
        "v1_0": {"imagename": "v1_0.png", "question": "What is x?", "answer": "-1 <AND> -5", **about},
        "v1_1": {"imagename": "v1_1.png", "question": "What is d?", "answer": "1.25 <OR> 5/4", **about},
    }
    put_json(home / "mm-vet.json", rows)


def video_mme(home: Path) -> None:
    clips(home / "data", "fFjv93ACGo8.mp4")
    row = {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History",
        "url": "https://", "videoID": "fFjv93ACGo8", "task_type": "Counting Problem", "question": "How many?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three are alike."], "answer": "C",
    }  # fmt: skip
    rows = [{**row, "question_id": f"001-{n}"} for n in (1, 2, 3)]
    put_parquet(home / "videomme/test-00000-of-00001.parquet", rows)


def mvbench(home: Path) -> None:
    clips(home / "video", "clevrer/video_validation/video_10009.mp4", "ssv2_video/166583.webm")
    row = {"video": "video_10009.mp4", "question": "Which way?", "candidates": ["Left.", "Right."], "answer": "Right."}
    put_json(home / "json/moving_direction.json", [row])
    put_json(home / "json/action_antonym.json", [{**row, "video": "166583.webm"}])
    put_json(home / "json/action_sequence.json", [{**row, "video": "ZS9XR.mp4", "start": 11.1, "end": 17.2}])


def temp_compass(home: Path) -> None:
    clips(home / "videos", "1021488277.mp4")
    row = {"video_id": "1021488277", "question": "What is he doing?\nA. eating\nB. running", "dim": "action"}
    put_parquet(home / "multi-choice/test-00000-of-00001.parquet", [{**row, "answer": "A. eating"}])
    put_parquet(home / "yes_no/test-00000-of-00001.parquet", [{**row, "question": "Is he eating?", "answer": "yes"}])


def long_video_bench(home: Path) -> None:
    clips(home / "videos", "86CxyhFV9MI.mp4")
    row = {
        "video_id": "86CxyhFV9MI", "question": "In the video, which subtitles appear while he speaks?",
        "question_wo_referring_query": "Which subtitles appear?", "candidates": ["one", "two", "three", "four", "five"],
        "correct_choice": 1, "position": [854], "topic_category": "NP-News-Programs", "question_category": "TOS",
        "level": "L2-Relation", "id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4", "duration": 60.0,
        "subtitle_path": "86CxyhFV9MI_en.json", "duration_group": 60, "view_count": 259852,
    }  # fmt: skip
    put_json(home / "lvb_val.json", [row])


WRITERS: dict[str, Callable[[Path], None]] = {
    "ai2d": ai2d,
    "hallusionbench": hallusionbench,
    "long_video_bench": long_video_bench,
    "mathvista_choice": mathvista,
    "mathvista_free": mathvista,
    "mm_vet": mm_vet,
    "mmmu_pro": mmmu_pro,
    "mmmu_pro_vision": mmmu_pro_vision,
    "mvbench": mvbench,
    "ocrbench": ocrbench,
    "ocrbench_formulas": ocrbench,
    "realworldqa": realworldqa,
    "temp_compass": temp_compass,
    "temp_compass_yes_no": temp_compass,
    "video_mme": video_mme,
}
