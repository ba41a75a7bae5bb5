"""Timed texts as files that players show: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Cue(NamedTuple):
    """A text, and when it is shown, in seconds."""

    start: float
    end: float
    text: str


def srt(cues: Iterable[Cue]) -> str:
    """As SubRip. Lines of a text become one, since an empty line would end it."""
    rows = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_line(cue.text)}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "\n".join(rows)


def vtt(cues: Iterable[Cue]) -> str:
    """As WebVTT (W3C), where `&`, `<` and `>` are written as its marks."""
    head = "WEBVTT\n"
    rows = [f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_marked(_line(cue.text))}\n" for cue in cues]
    return "\n".join([head, *rows])


FORMATS = {".srt": srt, ".vtt": vtt}


def _clock(seconds: float, point: str) -> str:
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}{point}{ms % 1000:03d}"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("-->", "->")  # the arrow would be read as times


def _marked(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
