"""A contact sheet of conversations: what each shows, and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from vlm.cli.demo_sheet import (
    ACCENT,
    BOX,
    CELL,
    COLUMNS,
    GAP,
    INK,
    MARGIN,
    SOFT,
    WIDTH,
    Line,
    block_of,
    draw_lines,
    font,
    picture,
    wrap,
)

if TYPE_CHECKING:
    from vlm.datasets.conversations import Sample
    from vlm.media.open import Media

SIZE, MOST_TURNS = 17, 6
"""Of the letters; messages of a conversation that are shown."""
MARK = {"user": SOFT, "system": SOFT, "assistant": ACCENT}


def conversation_sheet(title: str, shown: Sequence[tuple[Sample, list[Media]]]) -> Image.Image:
    """An RGB image, four conversations a row: their pictures and clips side by side, and their messages; replies that
    are learned are bold."""
    head, draw = block_of(120)
    draw.text((MARGIN, 84), title, font=font("bold", 32), fill=INK, anchor="ls")
    blocks = [head, *(_row(shown[i : i + COLUMNS]) for i in range(0, len(shown), COLUMNS))]
    image = Image.new("RGB", (WIDTH, sum(block.height for block in blocks) + MARGIN), "white")
    top = 0
    for block in blocks:
        image.paste(block, (0, top))
        top += block.height
    return image


def _row(items: Sequence[tuple[Sample, list[Media]]]) -> Image.Image:
    texts = [_messages(sample) for sample, _ in items]
    step = round(SIZE * 1.42)
    tallest = max(sum(len(lines) * step + 6 for lines in own) for own in texts)
    block, draw = block_of(BOX[1] + 14 + tallest + 40)
    for column, ((_, media), own) in enumerate(zip(items, texts, strict=True)):
        left = MARGIN + column * (CELL + GAP)
        wide = BOX[0] // max(1, len(media))
        for number, item in enumerate(media):
            block.paste(picture(item, (wide - 4 * (number > 0), BOX[1])), (left + number * wide + 4 * (number > 0), 0))
        top = BOX[1] + 14
        for lines in own:
            top = draw_lines(draw, lines, left, top, SIZE) + 6
    return block


def _messages(sample: Sample) -> list[list[Line]]:
    found: list[list[Line]] = []
    for number, message in enumerate(sample.messages[:MOST_TURNS]):
        words = " ".join(part.text if part.kind == "text" else f"[{part.kind}]" for part in message.parts)
        kind = "bold" if number in sample.learned else "regular"
        found.append(wrap([(words or "(nothing)", kind, MARK[message.role])], CELL, SIZE))
    if more := len(sample.messages) - MOST_TURNS:
        found += [wrap([(f"and {more} more", "regular", SOFT)], CELL, SIZE)] if more > 0 else []
    return found
