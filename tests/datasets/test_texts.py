from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm.datasets.texts import blocks, documents
from vlm.errors import BadInput


def test_documents_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("One text.\n\nTwo paragraphs.\n")
    (tmp_path / "b" / "c.jsonl").write_text("".join(json.dumps({"text": t, "n": 1}) + "\n" for t in ("x", " ", "y")))
    (tmp_path / "b" / "d.md").write_text("# Títle")
    (tmp_path / "b" / "picture.png").write_bytes(b"\xff\x00")
    assert documents(tmp_path) == ["One text.\n\nTwo paragraphs.\n", "x", "y", "# Títle"]
    assert documents(tmp_path / "b" / "c.jsonl") == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b" \n", r"a\.txt: no text in it; expected files of \.txt, \.md, \.jsonl"),
        ("a.txt", b"caf\xe9", r"a\.txt: not text in UTF-8: .* at byte 3"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', r"a\.jsonl:2: expected a JSON object with a string under text"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: expected a JSON object .*, got '\{\"text\": 3\}'"),
        ("a.jsonl", b"x\n", r"a\.jsonl:1: expected"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=words):
        documents(tmp_path / name)


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none: no such file or folder"):
        documents(tmp_path / "none")
    with pytest.raises(BadInput, match="no text in it"):
        documents(tmp_path)


def test_blocks_hold_the_documents_in_order() -> None:
    assert blocks([[1, 2], [3], [4, 5, 6]], end=9, length=4).tolist() == [[1, 2, 9, 3], [9, 4, 5, 6]]
    assert blocks([[1, 2]], end=9, length=50).tolist() == [[1, 2, 9]]
    with pytest.raises(ValueError, match="a text of 1 tokens has nothing to predict"):
        blocks([[]], end=9, length=4)
