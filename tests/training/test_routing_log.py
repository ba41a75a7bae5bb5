"""The routing of runs as figures and as a picture, from their logs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm.errors import BadInput
from vlm.training.routing_log import draw_routing, last_figures, read_log


def write(run: Path, *rows: dict[str, Any]) -> Path:
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    routing = {"load": [1.5, 4.0], "entropy": [0.9, 0.5], "dead": [0.0, 2.0]}
    later = {f"{p}{k}": v for p in ("", "validation_") for k, v in {"load": [1.25, 1.5], "dead": [0.0, 1.0]}.items()}
    return write(
        tmp_path / "run",
        {"step": 5, "loss": 3.0, "next_token_loss": 2.5, **routing},
        {"step": 10, "loss": 2.0, "next_token_loss": 1.5, "validation_next_token_loss": 1.75, **later},
    )


def test_figures_are_the_last_ones_of_the_worst_layer(run: Path) -> None:
    assert last_figures(read_log(run)) == {
        "step": 10, "load": 1.5, "validation_load": 1.5, "entropy": 0.5, "dead": 1.0, "validation_dead": 1.0,
        "loss": 2.0, "validation_next_token_loss": 1.75,
    }  # fmt: skip


def test_every_run_has_its_colour(run: Path, tmp_path: Path) -> None:
    rows, pictures = read_log(run), []
    for runs in ({"one": rows}, {"one": rows, "two": rows[:1]}):
        draw_routing(runs, tmp_path / "load.png")
        with Image.open(tmp_path / "load.png") as image:
            assert image.format == "PNG"
            pictures.append(np.asarray(image.convert("RGB")).reshape(-1, 3))
    orange = np.array([255, 127, 14])  # matplotlib's second
    assert [bool((picture == orange).all(-1).any()) for picture in pictures] == [False, True]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none/log\.jsonl: no such file; expected the folder of a run"):
        read_log(tmp_path / "none")
    with pytest.raises(BadInput, match=r"no routing in it; the model it trains has no mixture layers"):
        read_log(write(tmp_path / "dense", {"step": 1, "loss": 2.0}))
    (tmp_path / "dense" / "log.jsonl").write_text("{\n")
    with pytest.raises(BadInput, match="not a log"):
        read_log(tmp_path / "dense")
