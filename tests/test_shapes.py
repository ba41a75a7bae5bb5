"""Every letter of a name's shape suffix is in the glossary, `docs/shapes.md`, with one meaning a room; and no file of
code is long."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = re.compile(r"[a-z0-9_]*[a-z0-9]_([A-Z][A-Za-z0-9]*)$")
"""Of a variable: `x_BTD`. Constants and classes are written otherwise."""
SHAPE = re.compile(r"`\[((?:\w+, )*\w+)\]`")
"""Of a docstring: `[B, T, D]`."""


def rows(letter: str) -> list[list[str]]:
    """The cells of the table's rows that begin with letters like this."""
    lines = (ROOT / "docs" / "shapes.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells for cells in table if re.fullmatch(letter, cells[0])]


GLOSSARY = {(letter, room): meaning for letter, meaning, rooms in rows("[A-Z]") for room in rooms.split(", ")}
SMALL = {letter for cells in rows("[a-z](, [a-z])*") for letter in cells[0].split(", ")}


def meaning(letter: str, file: str) -> str | None:
    """What a letter means in a file, named from `vlm/` without its suffix: the nearest room's row counts."""
    parts = file.split("/")
    rooms = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((GLOSSARY[letter, room] for room in (*rooms, "all") if (letter, room) in GLOSSARY), None)


def sources() -> Iterator[tuple[str, str]]:
    """(file, content) of the package's files, named as in `meaning`."""
    for path in sorted((ROOT / "vlm").rglob("*.py")):
        yield path.relative_to(ROOT / "vlm").with_suffix("").as_posix(), path.read_text(encoding="utf-8")


@cache
def suffixes() -> list[tuple[str, str, str]]:
    """(file, name, suffix) of every argument, variable and attribute that has one."""
    named = []
    for file, content in sources():
        for node in ast.walk(ast.parse(content)):
            name = getattr(node, "arg", None) or getattr(node, "id", None) or getattr(node, "attr", None)
            if isinstance(name, str) and (found := SUFFIX.fullmatch(name)):
                named.append((file, name, found[1]))
    return named


def test_a_letter_has_one_meaning_a_room() -> None:
    named = Counter((letter, room) for letter, _, rooms in rows("[A-Z]") for room in rooms.split(", "))
    assert [row for row, count in named.items() if count > 1] == []
    missing = [room for _, room in GLOSSARY if room != "all" and not list((ROOT / "vlm").glob(f"{room}*"))]
    assert missing == []


def test_every_letter_is_in_the_glossary() -> None:
    found = suffixes()
    assert len(found) > 1000
    unknown = {
        f"vlm/{file}.py: {name}: letter {letter}"
        for file, name, suffix in found
        for letter in suffix
        if not (letter.isdigit() or letter in SMALL or (letter.isupper() and meaning(letter, file)))
    }
    assert sorted(unknown) == []


def test_every_row_is_used() -> None:
    found = {(file, letter) for file, _, suffix in suffixes() for letter in suffix}
    said = {(file, letter) for file, content in sources() for shape in SHAPE.findall(content) for letter in shape}
    used = {(letter, meaning(letter, file)) for file, letter in found | said if letter.isupper()}
    assert [row for row, text in GLOSSARY.items() if (row[0], text) not in used] == []
    assert {letter for _, letter in found if letter.islower()} == SMALL


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("vlm", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(lengths) > 400
    assert {path: lines for path, lines in lengths.items() if lines > 300} == {}
