"""What is compared is the same frames; a decoder that gives other ones is not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm.bench import video
from vlm.bench.timing import Missing, Ratio
from vlm.bench.video import KINDS, Frames, Kind, run, write
from vlm.media.video.reader import open_video

SMALL = Kind("small", (64, 48), 1, group=12)


def test_each_decoder_is_compared_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "KINDS", (SMALL,))
    monkeypatch.setattr(video, "FRAMES", (3,))
    monkeypatch.setitem(video.PEERS, "off by four", lambda path, some: video.in_order(path, [i + 4 for i in some]))
    results = {result.peer: result for result in run(rounds=1)}
    assert list(results) == list(video.PEERS)
    assert isinstance(results["PyAV in order"], Ratio)
    assert isinstance(results["off by four"], Missing)
    assert results["off by four"].why == "3 of 3 frames are other ones"
    assert all(isinstance(result, Ratio) or result.why for result in results.values())


def test_a_decoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    def absent(path: Path, indices: object) -> Frames:
        raise ImportError("no such library\nand more")

    path = write(tmp_path / "a.mp4", SMALL)
    assert video._compare("small", "absent", path, 3, absent, 1) == Missing("small", "absent", "no such library")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_clips_are_what_their_kind_says(kind: Kind, tmp_path: Path) -> None:
    short = Kind(**{**vars(kind), "size": (64, 48), "seconds": 1})
    with open_video(write(tmp_path / f"a.{kind.suffix}", short)) as reader:
        assert len(reader.times_N) == kind.rate
        steps = set((reader.times_N[1:] - reader.times_N[:-1]).round(3).tolist())
        assert (len(steps) > 2) == kind.uneven or len(steps) == 2  # containers round to milliseconds
        assert len(reader.keyframes) >= -(-kind.rate // kind.group)
