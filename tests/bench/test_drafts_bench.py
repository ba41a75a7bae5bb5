"""Guesses are measured on replies that are the same with them and without."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny

import vlm
from vlm.bench import drafts
from vlm.bench.drafts import compare
from vlm.cli import main
from vlm.engine.decoding import Decoding
from vlm.engine.drafts import planner
from vlm.engine.drafts.planner import Plan

sys.path.insert(0, str(Path(__file__).parents[1] / "engine" / "drafts"))
import guessing


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is written, and the last that there is guesses, whatever was measured."""
    monkeypatch.setattr(drafts, "ASKED", ("red wall?", "blue blue blue?"))
    monkeypatch.setattr(planner, "best", lambda replies, rows, step, known: Plan(known[-1].name, rows[-1]))


def test_every_kind_that_there_is_is_a_row(tmp_path: Path) -> None:
    card = vlm.load(tiny.write_card(tmp_path / "tiny"))
    found = compare(card, card, 1, lambda text: None, replies=(1, 2), tokens=12)
    kinds = ["none", "lookup", "draft", "what pays"]
    assert [(row.replies, row.guesses) for row in found.rows] == [(n, kind) for n in (1, 2) for kind in kinds]
    rows = {(row.replies, row.guesses): row for row in found.rows}
    for count in (1, 2):
        assert rows[count, "none"].guessed == 0
        assert rows[count, "none"].times == 1
        # Itself it guesses right, but for near ties.
        assert rows[count, "draft"].acceptance > 0.5
        assert rows[count, "draft"].tokens_per_step > rows[count, "none"].tokens_per_step
    assert all(row.seconds > 0 and row.least <= row.times <= row.most for row in found.rows)


def test_replies_that_differ_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = vlm.load(tiny.write_card(tmp_path / "tiny"))
    take = Decoding._take

    def wrong(self, one, logits):  # type: ignore[no-untyped-def]
        take(self, one, [-row_V for row_V in logits] if one.guesses.tokens else logits)

    monkeypatch.setattr(Decoding, "_take", wrong)
    with pytest.raises(AssertionError, match="guesses changed a reply"):
        compare(card, card, 1, lambda text: None, replies=(1,), tokens=12)


def test_the_command_tells_of_a_folder_with_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = guessing.write(tmp_path / "heads", guessing.latent(1), "deepseek_v3")
    long = ["--model", str(folder), "--rounds", "1", "--clients", "2"]
    assert main(["bench", "drafts", *long, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["guesses"] for row in found["rows"]] == ["none", "lookup", "heads", "what pays"]
    assert (found["model"], found["draft"], bool(found["machine"])) == ("heads", None, True)
