"""The sweep reads what it says, in processes of its own, and its table and picture hold every point."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vlm.bench import length
from vlm.bench.length import DESIGNS, Design, Point, Reader, Turn, draw
from vlm.bench.timing import peak_resident
from vlm.cli.app import app
from vlm.errors import VlmError

SMALL = tuple(
    Design(d.name, d.cfg.model_copy(update={"layers": 1, "vocab_size": 32, "ffn_width": 16}), d.blocks) for d in DESIGNS
)


def point(tokens: int, design: str = "MLA", expanded: float | None = 0.01) -> Point:
    return Point(1e-4, 1e-5, 2e-3, expanded, tokens * 100, 10**9, design, tokens, 1.0)


@pytest.mark.parametrize("design", SMALL, ids=lambda design: design.name)
def test_a_turn_measures_what_a_token_costs(design: Design) -> None:
    reader = Reader(design, 2048)
    turns = [reader.turn(tokens) for tokens in (1024, 2048, 2048)]
    assert all(turn.read_seconds > 0 and turn.decode_seconds > 0 for turn in turns)
    assert all((turn.expanded_seconds is not None) == (design.name == "MLA") for turn in turns)
    numbers = {"MLA": 128 + 32, "MLA, indexer": 128 + 32 + 32}.get(design.name, 2 * 2 * 64)
    assert [turn.cache_bytes for turn in turns] == [tokens * numbers * 4 for tokens in (1024, 2048, 2048)]


def test_the_indexers_time_is_counted_where_it_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.language.attention.latent.gathering_pays", lambda *_: True)
    turn = Reader(SMALL[3], 1024).turn(1024)
    assert 0 < turn.choosing_seconds < turn.read_seconds


def test_a_point_is_the_least_of_its_turns_and_sums_up_a_text() -> None:
    turns = [Turn(3e-4, 1e-4, 5e-3, 0.1, 7, 10), Turn(2e-4, 1.5e-4, 6e-3, 0.05, 7, 20)]
    first = length._point("MLA", 1024, turns, None)
    assert (first.read_seconds, first.choosing_seconds, first.decode_seconds) == (2e-4, 1.5e-4, 5e-3)
    assert (first.expanded_seconds, first.peak_bytes) == (0.05, 20)
    assert first.whole_seconds == pytest.approx(1024 * 2e-4)
    second = length._point("MLA", 2048, [replace(turn, read_seconds=4e-4) for turn in turns], first)
    assert second.whole_seconds == pytest.approx(1024 * (2e-4 + 3e-4))


@pytest.mark.process
def test_designs_take_turns_and_one_that_dies_is_named() -> None:
    said: list[str] = []
    points = list(length.length(1024, 1, said.append, SMALL[:2]))
    assert [(p.design, p.tokens) for p in points] == [("GQA", 1024), ("GQA, blocks", 1024)]
    assert said == [f"1024 tokens, round {n}, {name}" for n in (0, 1) for name in ("GQA", "GQA, blocks")]
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
