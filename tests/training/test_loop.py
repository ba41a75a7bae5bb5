"""A run that is cut anywhere and resumed is the run that was never cut."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from line import recipe, stage
from PIL import Image
from safetensors.torch import load_file

from vlm.errors import BadInput, VlmError
from vlm.training.loop import draw_curve, train
from vlm.training.recipe import Recipe


def log(run: Path) -> list[dict[str, object]]:
    """The log without what the clock says."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds_a_step"} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("weights.safetensors", "checkpoint/weights.safetensors", "checkpoint/optimizer.safetensors"):
        mine, theirs = load_file(one / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key].dtype == theirs[key].dtype
            assert torch.equal(mine[key], theirs[key]), (name, key)
    assert log(one) == log(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    train(recipe(), stage(), run)
    return run


@pytest.mark.parametrize("step", [0, 3, 4, 5, 8, 11])
def test_a_run_cut_at_any_step_resumes_exactly(whole: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), stage(fail_at=step), tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()
    train(recipe(), stage(), tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_killed_run_resumes_exactly(tmp_path: Path) -> None:
    """kill -9 at random moments, until the run has ended in spite of it."""
    long = recipe(steps=60, save_every=2)
    train(long, stage(), tmp_path / "whole")
    run, rng = tmp_path / "killed", random.Random(0)
    for kills in range(5):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            train(long, stage(delay=0.005), run)
            os._exit(0)
        deadline = time.monotonic() + 60
        before = (run / "checkpoint").resolve()
        while (run / "checkpoint").resolve() == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert (run / "checkpoint" / "state.json").is_file()
        if not os.WIFSIGNALED(status):
            assert kills > 0
            break
    train(long, stage(), run)
    assert_same_run(run, tmp_path / "whole")
    assert [path.name for path in run.glob("*checkpoint-*")] == ["checkpoint-60"]


@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_ends_the_run_at_the_last_checkpoint(
    whole: Path, tmp_path: Path, how: str
) -> None:
    """At step 8, whose weights would have been saved."""
    with pytest.raises(VlmError, match=r"at step 8 the loss is .*; the last checkpoint is kept"):
        train(recipe(), stage(fail_at=7, how=how), tmp_path)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 4
    train(recipe(), stage(), tmp_path)
    assert_same_run(tmp_path, whole)


def test_every_row_holds_its_own_steps_figures(tmp_path: Path) -> None:
    """Also where validation falls between two reports."""
    last = train(recipe(validate_every=5), stage(), tmp_path)
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10, 12]
    assert [row["step"] for row in rows if "line_loss" in row] == [5, 10, 12]
    assert last["step"] == 12
    assert last["rate"] > 0
    often = tmp_path / "often"
    train(recipe(validate_every=1, log_every=1), stage(), often)
    by_step = {row["step"]: row for row in log(often)}
    for row in rows:
        assert row.items() <= by_step[row["step"]].items()


def test_weights_hold_what_earlier_stages_trained(whole: Path) -> None:
    weights = load_file(whole / "weights.safetensors")
    assert weights.keys() == {"weight", "bias", "seen", "earlier"}
    assert weights["bias"].dtype == torch.bfloat16
    assert not torch.equal(weights["weight"], stage().task.trainable()["weight"])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"optimizer": {"lr": 0.04, "weight_decay": 0.1, "warmup": 3}}, "optimizer"),
        ({"steps": 13}, "steps"),
        ({"seed": 1, "batch": 2}, "batch, seed"),
        ({"objective": {"kind": "words", "dataset": "other"}}, "objective"),
    ],
)
def test_a_changed_recipe_is_refused(whole: Path, changes: dict[str, object], key: str) -> None:
    with pytest.raises(BadInput, match=f"holds a run with another {key}; choose another output or delete it"):
        train(recipe(**changes), stage(), whole)


def test_reporting_and_places_may_change(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), stage(fail_at=9), tmp_path)
    changed: Recipe = recipe(save_every=5, validate_every=4, log_every=1, data="elsewhere", output="other")
    train(changed, stage(), tmp_path)
    for name, tensor in load_file(whole / "weights.safetensors").items():
        assert torch.equal(load_file(tmp_path / "weights.safetensors")[name], tensor)


def test_a_finished_run_is_left_as_it_is(whole: Path) -> None:
    before = (whole / "weights.safetensors").read_bytes()
    last = train(recipe(), stage(fail_at=0), whole)
    assert (whole / "weights.safetensors").read_bytes() == before
    assert last["step"] == 12


def test_the_curve_is_a_picture(whole: Path, tmp_path: Path) -> None:
    assert (whole / "curve.png").is_file()
    draw_curve(log(whole), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        pixels = np.asarray(image.convert("RGB"))
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7].tolist()}
    assert len(colours) > 20


def test_progress_names_the_loss_and_the_time_left(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    train(recipe(), stage(), tmp_path, lambda done, total, text: said.append((done, total, text)))
    assert [row[:2] for row in said] == [(done, 12) for done in range(1, 13)]
    assert said[-1][2].startswith("loss ")
    assert said[-1][2].endswith("0:00:00 left")


def test_what_a_kill_left_behind_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-4.half").mkdir(parents=True)
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    train(recipe(), stage(), tmp_path)
    found = {path.name for path in tmp_path.iterdir() if "checkpoint" in path.name}
    assert found == {"checkpoint", "checkpoint-12", "checkpoint-best"}
