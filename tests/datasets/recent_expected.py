"""What the cards of recent benchmarks read first of their authors' files (`tests/original_recent.py`)."""

from __future__ import annotations

from typing import Any

RECENT: list[tuple[str, str, dict[str, Any]]] = [
    (
        "mmmu_pro",
        "test",
        {"id": "test_History_0", "options": tuple(f"${n}" for n in range(1, 11)), "answers": ("J",)},
    ),
    ("mmmu_pro_vision", "test", {"question": "Answer the question in the picture.", "answers": ("B",)}),
    ("mathvista_choice", "testmini", {"id": "2", "options": ("3/11", "8/11"), "answers": ("B",)}),
    (
        "mathvista_free",
        "testmini",
        {
            "id": "1",
            "question": "Hint: Please answer with one decimal place.\nQuestion: How long is it? (Unit: m)",
            "answers": ("1.2",),
        },
    ),
    ("ocrbench", "test", {"answers": ("CENTRE",), "meta": {"type": "Regular Text Recognition", "dataset": "IIIT5K"}}),
    ("ocrbench_formulas", "test", {"answers": ("\\frac { 1 } { 2 }",)}),
    ("ai2d", "test", {"question": "which is the sun?", "options": ("A", "B", "C", "D"), "answers": ("C",)}),
    ("realworldqa", "test", {"answers": ("B",)}),
    (
        "hallusionbench",
        "test",
        {
            "id": "VD/illusion/0/0/0",
            "answers": ("1",),
            "meta": {"category": "VD", "figure": "VD/illusion/0/0", "pair": "VD/illusion/0/0"},
        },
    ),
    ("mm_vet", "test", {"id": "v1_0", "answers": ("-1 <AND> -5",), "meta": {"capability": ["ocr", "math"]}}),
    (
        "video_mme",
        "test",
        {
            "id": "001-1",
            "options": ("A. Apples.", "B. Candles.", "C. Berries.", "D. The three are alike."),
            "answers": ("C",),
        },
    ),
    ("mvbench", "test", {"answers": ("B",), "meta": {"task": "action antonym", "part": "action_antonym"}}),
    ("temp_compass", "test", {"answers": ("A. eating",), "meta": {"dim": "action", "part": "00000-of-00001"}}),
    ("temp_compass_yes_no", "test", {"question": "Is he eating?", "answers": ("yes",)}),
    (
        "long_video_bench",
        "val",
        {
            "id": "86CxyhFV9MI_0",
            "answers": ("B",),
            "meta": {"duration": 60, "type": "TOS", "topic": "NP-News-Programs"},
        },
    ),
]
