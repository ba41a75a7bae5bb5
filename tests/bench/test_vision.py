"""The comparisons run at toy size, and only when both sides compute the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny
import torch
from typer.testing import CliRunner

from vlm.bench import vision
from vlm.bench.timing import Missing, Ratio
from vlm.cli.app import app
from vlm.errors import VlmError


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tower = tiny.TOWER.build().eval()
    monkeypatch.setattr(vision, "_tower", lambda: tower)
    monkeypatch.setattr(vision, "PICTURES", 2)
    monkeypatch.setattr(vision, "LARGE", 800)
    monkeypatch.setattr(vision, "FEW", 2)


def test_every_comparison_agrees_and_is_timed() -> None:
    said: list[str] = []
    results = list(vision.run(rounds=1, say=said.append))
    assert [result.what.split(", ")[-1] for result in results] == [
        "float32", "bfloat16", "INT8", "fast", "fast", "scaled",
    ]  # fmt: skip
    for result in results:
        assert isinstance(result, Ratio) or "VNNI" in result.why
    assert [result.what for result in results] == said
    assert isinstance(results[0], Ratio)
    assert "pooled at least 1.0000" in results[0].note


def test_a_tower_that_is_far_from_float32_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(vision.Bfloat16):
        def forward(self, pixels: Any) -> Any:
            return super().forward(torch.flip(pixels, [3]))

    monkeypatch.setattr(vision, "Bfloat16", Wrong)
    with pytest.raises(AssertionError, match=r"bfloat16: cosine to float32 0\.\d+ pooled"):
        list(vision.run(rounds=1))


def test_without_weights_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise VlmError("the network is off")

    monkeypatch.setattr(vision, "_tower", fail)
    first, *rest = vision.run(rounds=1)
    assert first == Missing("tower", "open_clip, float32", "the network is off")
    assert len(rest) == 3


def test_command_gives_one_object() -> None:
    done = CliRunner().invoke(app, ["bench", "vision", "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["results"]) == 6
