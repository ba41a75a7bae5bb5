"""Benchmarks of moments: the spans a model finds in a clip, against the true ones."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from squares import COLORS, FakeModel

from vlm.evaluation.run import Options, evaluate
from vlm.heads.moments import WATCHED
from vlm.media.video.sampling import Rate


def write_clip(path: Path, seconds: dict[str, int]) -> None:
    """One plain colour after another, two frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        number = 0
        for color, length in seconds.items():
            for _ in range(2 * length):
                pixels = np.full((32, 32, 3), COLORS[color], np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 2)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode())


def benchmark(folder: Path, **card: Any) -> str:
    home = folder / "spans"
    home.mkdir()
    write_clip(home / "a.mp4", {"red": 6, "green": 8, "blue": 10})
    windows = {"red": [0, 6], "green": [6, 14], "blue": [14, 24]}
    rows = [
        {"id": color, "video": "a.mp4", "question": color, "windows": [span], "duration": 24, "split": "test"}
        for color, span in windows.items()
    ]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "name": "spans", "about": "colours in turn", "licence": "none", "source": "made by the test",
        "folder": "spans", "annotations": "rows.jsonl", "splits": {"test": 3},
    }  # fmt: skip
    (folder / "spans.yaml").write_text(yaml.safe_dump(data))
    about = {"name": "spans-test", "about": "spans", "dataset": "spans.yaml", "split": "test", "kind": "moments"}
    (folder / "benchmark.yaml").write_text(yaml.safe_dump({**about, **card}))
    return str(folder / "benchmark.yaml")


def test_spans_are_found_and_scored(tmp_path: Path) -> None:
    own = Rate(fps=0.5, frames=150)
    card = benchmark(tmp_path, sampling=own.model_dump())
    (result,) = evaluate(FakeModel(), [card], Options(data=str(tmp_path)))  # type: ignore[arg-type]
    assert result.main == "R1@0.5"
    assert result.figures["R1@0.5"].value == 100
    assert result.figures["R1@0.7"].value == 100
    assert result.figures["tIoU"].value == pytest.approx(100)
    assert own.model_dump_json() in result.notes[0]
    (tmp_path / "usual").mkdir()
    card = benchmark(tmp_path / "usual")
    (usual,) = evaluate(FakeModel(), [card], Options(data=str(tmp_path / "usual")))  # type: ignore[arg-type]
    assert WATCHED.model_dump_json() in usual.notes[0]
    assert usual.figures["R1@0.7"].value == 100


@pytest.mark.parametrize(
    ("sampling", "right", "colours"),
    [({"kind": "rate", "fps": 1}, 100.0, 3), ({"kind": "uniform", "frames": 1}, 0.0, 1)],
)
def test_the_card_says_which_frames_are_seen(
    tmp_path: Path, sampling: dict[str, Any], right: float, colours: int
) -> None:
    task, model = benchmark(tmp_path, sampling=sampling), FakeModel()
    (result,) = evaluate(model, [task], Options(data=str(tmp_path)))  # type: ignore[arg-type]
    assert result.figures["R1@0.7"].value == right
    assert model.asked == 3 + colours  # three texts; of equal frames one is asked about
    assert result.card.sampling is not None
