"""`vlm routing` and `vlm experts`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stand_in import Done, FakeModel

from vlm.language.mixture.statistics import RoutingStatistics


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    for number, path in enumerate(paths, start=1):
        path.mkdir(parents=True)
        row = {"step": 4, "loss": 2.0, "next_token_loss": 2.0, "load": [1.0 + number], "entropy": [0.5], "dead": [0.0]}
        (path / "log.jsonl").write_text(json.dumps(row) + "\n")
    return paths


def test_runs_are_drawn_beside_each_other(vlm_command: Callable[..., Done], runs: list[Path], tmp_path: Path) -> None:
    done = vlm_command("routing", *runs, "--to", tmp_path / "load.png", "--json")
    assert done.code == 0
    assert {name: figures["load"] for name, figures in done.json["runs"].items()} == {str(runs[0]): 2, str(runs[1]): 3}
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    done = vlm_command("routing", runs[0], "--to", tmp_path / "load.png")
    assert (done.code, done.err) == (0, "")
    assert "entropy" in done.out
    done = vlm_command("routing", tmp_path)
    assert (done.code, len(done.complaints)) == (2, 1)


def test_experts_of_pictures_and_words_are_added_up(
    vlm_command: Callable[..., Done], model: FakeModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = RoutingStatistics(
        torch.tensor([[3.0, 1.0]]), {"image": torch.tensor([[3.0, 0.0]]), "text": torch.tensor([[0.0, 1.0]])}, 4
    )
    monkeypatch.setattr(FakeModel, "expert_use", lambda self, media: [one] * len(media), raising=False)
    done = vlm_command("experts", photos, "--to", tmp_path / "experts.png", "--json")
    assert done.code == 0
    assert done.json["inputs"] == 3
    assert done.json["load"] == [1.5]
    assert done.json["preference"] == {"image": [[pytest.approx(4 / 3), 0]], "text": [[0, 4]]}
    assert (tmp_path / "experts.png").read_bytes().startswith(b"\x89PNG")
    (photos / "no.jpg").write_bytes(b"words")
    done = vlm_command("experts", photos, "--to", tmp_path / "experts.png")
    assert (done.code, len(done.complaints)) == (2, 1)
    assert "mixture layer" in done.out
