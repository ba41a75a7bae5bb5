"""Plain text for a language model: documents out of files, and blocks of equal length out of documents.

N blocks, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from vlm.errors import BadInput

SUFFIXES = (".txt", ".md", ".jsonl")


def documents(path: Path) -> list[str]:
    """The documents of a text file (one), of a file of JSON lines (each record's `text`), or of all such files in a
    folder and below it, in the order of their names.

    Raises `BadInput` where there are none, and for what is not UTF-8 or not such a record.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    else:
        files = [path]
    found = [text for file in files for text in _read(file) if text.strip()]
    if not found:
        raise BadInput(f"{path}: no text in it; expected files of {', '.join(SUFFIXES)}")
    return found


def _read(file: Path) -> list[str]:
    try:
        content = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file or folder") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not text in UTF-8: {error.reason} at byte {error.start}") from None
    if file.suffix != ".jsonl":
        return [content]
    texts = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            texts.append(json.loads(line)["text"])
        except (ValueError, KeyError, TypeError):
            texts.append(None)
        if not isinstance(texts[-1], str):
            raise BadInput(f"{file}:{number}: expected a JSON object with a string under text, got {line[:60]!r}")
    return texts


def blocks(encoded: Iterable[list[int]], end: int, length: int) -> Tensor:
    """Documents one after another, each closed by the token `end`, cut into `[N, T]` of T = `length` tokens.

    What is left at the end is dropped, unless it is all there is. Raises `ValueError` for fewer than two tokens.
    """
    tokens = torch.tensor([token for document in encoded for token in (*document, end)])
    if len(tokens) < 2:
        raise ValueError(f"a text of {len(tokens)} tokens has nothing to predict")
    length = min(length, len(tokens))
    return tokens[: len(tokens) // length * length].view(-1, length)
