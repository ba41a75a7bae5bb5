"""Captions and answers that fit each other, for the tests of `vlm score`."""

from __future__ import annotations

HYPOTHESES = {"a": "A dog runs.", "b": "Two kids play soccer", "c": "a man rides a horse"}
REFERENCES = {"a": ["a dog runs on the grass", "A dog!"], "b": ["kids play"], "c": ["a man rides a horse"]}
ANNOTATIONS = [
    {
        "question_id": number,
        "question_type": kind,
        "answer_type": answer,
        "answers": [{"answer": "red", "answer_id": 1}] * 3 + [{"answer": "blue"}] * 7,
    }
    for number, kind, answer in ((1, "what color", "other"), (2, "what color", "number"), (3, "other", "other"))
]
PREDICTIONS = {"1": "red", "2": "blue", "3": "green"}
