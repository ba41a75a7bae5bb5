"""The sweep reads what it says, in processes of its own, and its table and picture hold every point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vlm.bench import length
from vlm.bench.length import DESIGNS, Design, Point, draw, measure
from vlm.bench.timing import peak_resident
from vlm.cli.app import app
from vlm.errors import VlmError

SMALL = tuple(
    Design(d.name, d.cfg.model_copy(update={"layers": 1, "vocab_size": 32, "ffn_width": 16}), d.blocks) for d in DESIGNS
)


def point(tokens: int, design: str = "MLA", expanded: float | None = 0.01) -> Point:
    return Point(design, tokens, 1e-4, 1e-5, 2e-3, expanded, 1.0, tokens * 100, 10**9)


@pytest.mark.parametrize("design", SMALL, ids=lambda design: design.name)
def test_a_design_is_measured_at_every_doubling(design: Design) -> None:
    points = list(measure(design, limit=3000, rounds=1))
    assert [p.tokens for p in points] == [1024, 2048]
    assert all(p.read_seconds > 0 and p.decode_seconds > 0 for p in points)
    assert all((p.expanded_seconds is not None) == (design.name == "MLA") for p in points)
    assert points[1].whole_seconds > points[0].whole_seconds
    numbers = {"GQA": 2 * 2 * 64, "MLA": 128 + 32, "MLA, indexer": 128 + 32 + 32}
    expected = numbers.get(design.name, 2 * 2 * 64)
    assert [p.cache_bytes for p in points] == [1024 * expected * 4, 2048 * expected * 4]


def test_the_indexers_time_is_counted_where_it_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.language.latent_attention.gathering_pays", lambda *_: True)
    (found,) = measure(SMALL[3], limit=1024, rounds=1)
    assert 0 < found.choosing_seconds < found.read_seconds


def test_each_design_has_a_process_and_one_that_dies_is_named() -> None:
    torch.set_num_threads(torch.get_num_threads())
    said: list[str] = []
    points = list(length.length(1024, 1, said.append, SMALL[:1]))
    assert [(p.design, p.tokens) for p in points] == [("GQA", 1024)]
    assert said == ["GQA", "GQA, 1024 tokens"]
    broken = Design("broken", SMALL[0].cfg.model_copy(update={"heads": 3}))
    with pytest.raises(VlmError, match="broken: its process ended early, with exit code 1"):
        list(length.length(1024, 1, designs=[broken]))


def test_a_table_and_a_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = [point(1024), point(2048), point(1024, "GQA", None)]
    asked: list[tuple[int, int]] = []

    def fake(limit: int, rounds: int, say: object) -> list[Point]:
        asked.append((limit, rounds))
        return points

    monkeypatch.setattr(length, "length", fake)
    done = CliRunner().invoke(app, ["bench", "length", "--limit", "2048", "--to", str(tmp_path / "a.png"), "--json"])
    assert done.exit_code == 0, done.output
    assert asked == [(2048, 5)]
    assert [result["tokens"] for result in json.loads(done.stdout)["results"]] == [1024, 2048, 1024]
    assert Image.open(tmp_path / "a.png").size[0] > 800
    lines = CliRunner().invoke(app, ["bench", "length"]).stdout.splitlines()
    assert len([line for line in lines if "1,024" in line or "2,048" in line]) == 3


def test_a_picture_of_one_point(tmp_path: Path) -> None:
    draw([point(1024)], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_peak_memory_is_this_processs_own() -> None:
    before = peak_resident()
    if before is None:
        pytest.skip("the kernel does not say")
    held = torch.ones(40 * 2**20)
    assert peak_resident() > 100 * 2**20
    assert held.sum() > 0
