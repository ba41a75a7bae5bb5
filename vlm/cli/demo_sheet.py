"""The demo's contact sheet: one PNG with every picture, what the model said of it, and what searches found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from vlm.cli.demo_report import Report, Searched, Shown
    from vlm.media.open import Media

WIDTH, MARGIN, GAP, COLUMNS = 1840, 64, 32, 4
CELL = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
BOX = (CELL, CELL * 3 // 4)
QUERY = 300
INK, SOFT, ACCENT, PAPER, MAT, RULE = "#17202a", "#6b7785", "#0b62c4", "#ffffff", "#eef1f4", "#d9dfe5"
MAX_LINES = 4

Run = tuple[str, str, str]
"""Words, font (regular or bold), colour."""


def sheet(report: Report) -> Image.Image:
    """The whole sheet as an RGB image; its height follows from what there is to show."""
    rows = [report.shown[i : i + COLUMNS] for i in range(0, len(report.shown), COLUMNS)]
    blocks = [_header(report), *(_row(row) for row in rows), _title("Searches")]
    blocks += [_search(searched) for searched in report.searched]
    image = Image.new("RGB", (WIDTH, sum(block.height for block in blocks) + MARGIN), PAPER)
    top = 0
    for block in blocks:
        image.paste(block, (0, top))
        top += block.height
    return image


@cache
def font(kind: str, size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if kind == "bold" else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@dataclass(frozen=True)
class Line:
    words: tuple[tuple[float, Run], ...]
    """Where each word begins, in pixels, and the word."""


def wrap(runs: list[Run], width: int, size: int, most: int = MAX_LINES) -> list[Line]:
    """Words set in lines of at most `width` pixels; beyond `most` lines an ellipsis; a long word is cut."""
    lines: list[list[tuple[float, Run]]] = [[]]
    right = 0.0
    for text, kind, colour in runs:
        face = font(kind, size)
        space = font("regular", size).getlength(" ")
        for whole in text.split():
            word = whole
            while len(word) > 1 and face.getlength(word) > width:
                word = word[:-2] + "…"
            left = right + space if lines[-1] else 0.0
            if lines[-1] and left + face.getlength(word) > width:
                if len(lines) == most:
                    while word and left + face.getlength(word + "…") > width:
                        word = word[:-1]
                    if len(word) > 2:
                        lines[-1].append((left, (word + "…", kind, colour)))
                    else:
                        at, (last, *rest) = lines[-1][-1]
                        lines[-1][-1] = (at, (last.rstrip(".,") + "…", rest[0], rest[1]))
                    return [Line(tuple(line)) for line in lines]
                lines.append([])
                left = 0.0
            lines[-1].append((left, (word, kind, colour)))
            right = left + face.getlength(word)
    return [Line(tuple(line)) for line in lines]


def draw_lines(draw: ImageDraw.ImageDraw, lines: list[Line], left: int, top: int, size: int) -> int:
    """Draw `lines` from (left, top) down; returns where the next thing may begin."""
    step = round(size * 1.42)
    for line in lines:
        for at, (word, kind, colour) in line.words:
            draw.text((left + at, top + size), word, font=font(kind, size), fill=colour, anchor="ls")
        top += step
    return top


def _header(report: Report) -> Image.Image:
    clips = sum(1 for item in report.shown if item.times)
    block, draw = block_of(158)
    draw.text((MARGIN, 92), f"vlm demo · {report.model}", font=font("bold", 40), fill=INK, anchor="ls")
    counts = f"{len(report.shown) - clips} pictures" + (f" and {clips} clips" if clips else "")
    words = f"{counts}: captions, answers and searches as the model gave them"
    draw.text((MARGIN, 128), words, font=font("regular", 20), fill=SOFT, anchor="ls")
    return block


def _title(text: str) -> Image.Image:
    block, draw = block_of(96)
    draw.line((MARGIN, 12, WIDTH - MARGIN, 12), fill=RULE, width=2)
    draw.text((MARGIN, 66), text, font=font("bold", 28), fill=INK, anchor="ls")
    return block


def _row(items: list[Shown]) -> Image.Image:
    texts = [
        (
            wrap([(item.caption or "(no caption)", "bold", INK)], CELL, 19),
            [wrap([(q, "regular", SOFT), (a or "(no answer)", "bold", ACCENT)], CELL, 17) for q, a in item.answers],
        )
        for item in items
    ]
    tall = max(len(caption) * 27 + sum(len(a) * 24 + 5 for a in answers) for caption, answers in texts)
    block, draw = block_of(BOX[1] + 14 + tall + 40)
    for column, (item, (caption, answers)) in enumerate(zip(items, texts, strict=True)):
        left = MARGIN + column * (CELL + GAP)
        block.paste(picture(item, BOX), (left, 0))
        top = draw_lines(draw, caption, left, BOX[1] + 14, 19)
        for lines in answers:
            top = draw_lines(draw, lines, left, top + 5, 17)
    return block


def _search(searched: Searched) -> Image.Image:
    hits = max(1, len(searched.hits))
    wide = (WIDTH - 2 * MARGIN - QUERY - 5 * GAP) // max(5, hits)
    box = (wide, wide * 3 // 4)
    block, draw = block_of(box[1] + 34 + 34)
    if searched.picture is None:
        draw_lines(draw, wrap([(f"“{searched.query}”", "bold", INK)], QUERY, 22), MARGIN, 4, 22)
    else:
        block.paste(picture(searched.picture, box), (MARGIN, 0))
        label = wrap([("pictures like this one", "bold", INK)], QUERY, 17, 1)
        draw_lines(draw, label, MARGIN, box[1] + 8, 17)
    for column, (item, score) in enumerate(searched.hits):
        left = MARGIN + QUERY + GAP + column * (wide + GAP)
        block.paste(picture(item, box), (left, 0))
        runs = [(f"{score:.2f}", "bold", ACCENT), (item.name, "regular", SOFT)]
        draw_lines(draw, wrap(runs, wide, 17, 1), left, box[1] + 8, 17)
    return block


def picture(item: Shown | Media, box: tuple[int, int]) -> Image.Image:
    """A picture within `box` on a mat; of a clip, its frames in a grid with their times."""
    mat = Image.new("RGB", box, MAT)
    columns = 1 if len(item.frames) == 1 else 2
    rows = -(-len(item.frames) // columns)
    gap = 0 if columns == 1 else 4
    size = ((box[0] - gap * (columns - 1)) // columns, (box[1] - gap * (rows - 1)) // rows)
    for number, frame in enumerate(item.frames):
        small = ImageOps.contain(frame, size) if columns == 1 else ImageOps.fit(frame, size)
        row, column = divmod(number, columns)
        left, top = column * (size[0] + gap), row * (size[1] + gap)
        mat.paste(small, (left + (size[0] - small.width) // 2, top + (size[1] - small.height) // 2))
        if item.times:
            _stamp(mat, f"{item.times[number]:.1f} s", left, top, min(15, size[1] // 5))
    return mat


def _stamp(image: Image.Image, text: str, left: int, top: int, size: int) -> None:
    draw = ImageDraw.Draw(image, "RGBA")
    face = font("bold", max(size, 9))
    wide = face.getlength(text)
    draw.rounded_rectangle((left + 6, top + 6, left + 18 + wide, top + 14 + size), 4, fill=(0, 0, 0, 150))
    draw.text((left + 12, top + 10 + size // 2), text, font=face, fill="white", anchor="lm")


def block_of(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, height), PAPER)
    return image, ImageDraw.Draw(image)
