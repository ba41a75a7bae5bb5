"""Subtitle files, read back by FFmpeg's readers."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from vlm.media.subtitles import FORMATS, Cue

CUES = [
    Cue(0.0, 1.9996, "A dog\n\nin the <snow> & rain"),
    Cue(1.9996, 61.25, "00:00:01,000 --> 00:00:02,000"),
    Cue(61.25, 7325.5, "Ein Hühnchen läuft."),
]
WORDS = ["A dog in the <snow> & rain", "00:00:01,000 -> 00:00:02,000", "Ein Hühnchen läuft."]


def read(path: Path) -> list[tuple[int, int, str]]:
    """(start, end in milliseconds, text) of each."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        found = []
        for packet in container.demux(stream):
            if packet.size:
                tick = float(stream.time_base or 0) * 1000
                start, lasts = round((packet.pts or 0) * tick), round((packet.duration or 0) * tick)
                found.append((start, start + lasts, bytes(packet).decode()))
    return found


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    path.write_text(FORMATS[suffix](CUES), encoding="utf-8")
    found = read(path)
    assert [row[:2] for row in found] == [(0, 2000), (2000, 61250), (61250, 7325500)]
    texts = [text for _, _, text in found]
    if suffix == ".vtt":  # FFmpeg leaves the format's marks as they are
        texts = [t.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for t in texts]
    assert texts == WORDS


@pytest.mark.parametrize("suffix", FORMATS)
def test_nothing_said_is_a_file_all_the_same(suffix: str) -> None:
    assert FORMATS[suffix]([]) == ("WEBVTT\n" if suffix == ".vtt" else "")
