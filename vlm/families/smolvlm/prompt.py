"""What SmolVLM reads around its pictures: the conversation's template, the marks of tiles, the times of frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from vlm.conversation.inputs import Grid
from vlm.conversation.messages import IMAGE, Message

START, END = "<|im_start|>", "<end_of_utterance>"
AROUND, GLOBAL = "<fake_token_around_image>", "<global-img>"
ASSISTANT = "Assistant:"


def conversation(messages: Sequence[Message], seen: Sequence[str]) -> str:
    """The whole text; `seen` are the texts of the pictures and clips in reading order. Where the last message is not
    the assistant's its reply begins, else that message goes on."""
    text, shown = START, iter(seen)
    for number, (role, parts) in enumerate(messages):
        text += role.capitalize() + (":" if parts and parts[0].kind == "image" else ": ")
        for part in parts:
            text += part.text if part.kind == "text" else next(shown)
        if number + 1 < len(messages) or role != "assistant":
            text += f"{END}\n"
        elif not parts:
            text = text[:-1]  # only begun: as if it was not there
    return text if messages and messages[-1].role == "assistant" else text + ASSISTANT


def picture(grid: Grid, slots: int) -> str:
    """The tiles of a picture row by row, each named by its place, then the whole; the whole alone for (0, 0)."""
    wide, high = grid
    tile = IMAGE * slots
    rows = [
        "".join(f"{AROUND}<row_{row + 1}_col_{column + 1}>{tile}" for column in range(wide)) + "\n"
        for row in range(high)
    ]
    return "".join(rows) + ("\n" if rows else "") + f"{AROUND}{GLOBAL}{tile}{AROUND}"


def clip(times: Sequence[float], duration: float | None, slots: int) -> str:
    """The frames of a clip, each after its time."""
    length = timedelta(seconds=int(times[-1] if duration is None else duration))
    frames = [f"\nFrame from {int(time // 60):02d}:{int(time % 60):02d}:{picture((0, 0), slots)}" for time in times]
    intro = (
        f"You are provided the following series of {number_words(len(times))} frames from a {length} [H:MM:SS] video."
    )
    return f"{intro}\n{''.join(frames)}\n\n"


SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words(number: int) -> str:
    """A number below a thousand in English words; larger ones in digits."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{SMALL[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{SMALL[hundreds]} hundred" + (f" and {number_words(rest)}" if rest else "")
    return str(number)
