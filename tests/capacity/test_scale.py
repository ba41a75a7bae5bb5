"""The simulations against what can be worked out on paper, and the plan of a billion against its own arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm import config
from vlm.assets import root
from vlm.capacity import plan as plans
from vlm.capacity.fan_out import shard_latency, slowest, tail
from vlm.capacity.inputs import CODES, Scale
from vlm.capacity.job import Machines, simulate
from vlm.capacity.plan import planned
from vlm.cli import main
from vlm.errors import BadInput

BILLION = root() / "configs" / "scale" / "billion.yaml"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def exponential(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.exponential(1.0, count)


@pytest.mark.parametrize("shards", [1, 7, 100])
def test_the_slowest_of_exponentials_is_a_harmonic_number(rng: np.random.Generator, shards: int) -> None:
    latency_Q, again = slowest(exponential, shards, 20_000, rng)
    harmonic = sum(1 / k for k in range(1, shards + 1))
    assert latency_Q.mean() == pytest.approx(harmonic, rel=0.03)
    assert again == 0


def test_p99_of_many_shards_is_a_far_quantile_of_one(rng: np.random.Generator) -> None:
    """All of S are below x with the S-th power of one's chance."""
    found = tail(exponential, 50, 40_000, rng)
    assert found.p99 == pytest.approx(-np.log(1 - 0.99 ** (1 / 50)), rel=0.05)


def test_asking_late_shards_twice(rng: np.random.Generator) -> None:
    """Of one shard: later than h + t only where both are; the exponential has no memory, so the rate doubles."""
    hedge = 1.0
    latency_Q, again = slowest(exponential, 1, 200_000, rng, hedge)
    assert again == pytest.approx(np.exp(-hedge), rel=0.03)
    assert (latency_Q > hedge + 0.5).mean() == pytest.approx(np.exp(-hedge) * np.exp(-2 * 0.5), rel=0.05)
    draw = shard_latency(1.0, 3.0, 0.2, 0.001, 50.0)
    assert tail(draw, 100, 4000, rng, 0.95).p99 < tail(draw, 100, 4000, rng).p99 / 3


def test_nothing_fails(rng: np.random.Generator) -> None:
    run = simulate(101, 2.0, Machines(10), rng)
    assert (run.done_S[-1], run.tries, run.lost) == (22.0, 101, 0.0)
    assert run.done_S[0] == 2.0
    assert (np.diff(run.done_S) >= 0).all()


def test_tries_of_a_shard_that_fails_by_chance(rng: np.random.Generator) -> None:
    p = 0.3
    run = simulate(20_000, 1.0, Machines(16, attempt_failure=p), rng)
    assert run.tries / 20_000 == pytest.approx(1 / (1 - p), rel=0.02)
    assert run.lost == pytest.approx(run.tries - 20_000)


def test_time_of_a_shard_on_a_machine_that_fails(rng: np.random.Generator) -> None:
    """Begun anew after each failure, a shard of d takes (e^(rate d) - 1)(1 / rate + restart) on average."""
    rate, d, restart = 0.5, 1.0, 0.25
    run = simulate(20_000, d, Machines(1, failure_rate=rate, restart=restart), rng)
    assert run.done_S[-1] / 20_000 == pytest.approx((np.exp(rate * d) - 1) * (1 / rate + restart), rel=0.03)
    assert run.tries / 20_000 == pytest.approx(np.exp(rate * d), rel=0.02)
    assert run.done_S[-1] == pytest.approx(20_000 * d + run.lost, rel=0.001)


def test_slow_machines_do_fewer_shards(rng: np.random.Generator) -> None:
    """Who is slow takes fewer from the queue: the job's rate is the sum of the machines'."""
    run = simulate(30_000, 1.0, Machines(100, slow_share=0.2, slow_times=4.0), rng)
    slow = 100 - 100 * (30_000 / run.done_S[-1] / 100 - 1 / 4) / (1 - 1 / 4)
    assert 8 <= slow <= 32
    assert run.done_S[-1] < 30_000 / 100 * 1.6


def small(**chosen: Any) -> Scale:
    scale = config.load(Scale, BILLION)
    return scale.model_copy(update={"chosen": scale.chosen.model_copy(update={"items": 1e7, **chosen})})


def test_a_plan_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "QUERIES", 200)
    scale = small(items=2e7, machines=10)
    done = planned(scale)
    assert planned(scale).jobs[0].hours == done.jobs[0].hours
    job = done.jobs[0]
    work = 2e7 / (scale.measured.images_per_second * scale.assumed.machine_cores) / 3600
    assert job.shards == 2000
    assert job.ideal_hours == pytest.approx(work / 10)
    assert job.hours > job.ideal_hours
    assert job.machine_hours == pytest.approx(10 * job.hours)
    assert job.dollars == pytest.approx(job.machine_hours * scale.assumed.machine_dollars_an_hour)
    whole = next(c for c in done.codes if (c.code, c.width) == ("float32", 512))
    assert whole.terabytes == pytest.approx(2e7 * 2048 / 1e12)
    assert len(done.codes) == len(CODES) * 4
    held = 2e7 * (512 * CODES["int8"] + 100) * 2
    assert next(c for c in done.codes if (c.code, c.width) == ("int8", 512)).machines == -(-held // (128e9 * 0.7))
    assert done.serving.complete_share == pytest.approx(0.999999**100)
    assert done.store.reads == 100 * 21


def test_what_cannot_be_planned_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="expected at most 1000000 shards to simulate, got 10000000"):
        planned(small(shard_items=1.0))
    with pytest.raises(BadInput, match="unknown code 'int9'; did you mean 'int8'"):
        planned(small(code="int9"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "QUERIES", 200)
    arguments = ["plan", str(BILLION), "chosen.items=1e7", "chosen.machines=5"]
    assert main([*arguments, "--json", "--to", str(tmp_path / "s.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"]["chosen"]["machines"] == 5
    assert found["jobs"][0]["shards"] == 1000
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert main(arguments) == 0
    assert "p99" in capsys.readouterr().out
    assert main([*arguments, "chosen.itmes=3"]) == 2
    assert "chosen.itmes" in capsys.readouterr().err


def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm.capacity import measure

    for name, value in {"SECONDS": 0.05, "SCANNED": 500, "CALLS": 20, "WRITTEN": 200}.items():
        monkeypatch.setattr(measure, name, value)
    found = measure.measure(lambda media: np.ones((len(media), 8), np.float32), 64, "here")
    assert found.where == "here"
    assert min(value for key, value in found.model_dump().items() if key != "where") > 0
