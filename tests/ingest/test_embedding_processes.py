"""A collection becomes the same folder of vectors after kills, and by the processes of Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from folders_of_vectors import eye, plan, rows, run, state

from vlm.errors import BadInput
from vlm.ingest.job import Job, Model
from vlm.ingest.plan import open_plan

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytestmark = pytest.mark.process

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import folders_of_vectors as t
from vlm.ingest.job import Job, Model
from vlm.ingest.embedding import embed_collection
marks = Path(sys.argv[3])
def slow():
    def embed(media):
        (marks / str(time.monotonic_ns())).touch()
        time.sleep(0.3)
        return t.embed(media)
    return Model(embed)
t.plan(Path(sys.argv[2]), sys.argv[1])
embed_collection(Job(Path(sys.argv[2]), slow), engine=sys.argv[5], workers=2 if sys.argv[5] == "ray" else None)
"""


def kill(photos: Path, folder: Path, engine: str, shards: int) -> None:
    """Run until so many shards are there, then kill -9."""
    marks = folder.parent / "marks"
    marks.mkdir(exist_ok=True)
    arguments = [sys.executable, "-c", WORKER, photos, folder, marks, Path(__file__).parent, engine]
    process = subprocess.Popen([str(argument) for argument in arguments], start_new_session=True)
    while process.poll() is None and len(state(folder)) < shards:
        pass_time()
    process.send_signal(signal.SIGKILL)
    process.wait()


def pass_time() -> None:
    signal.sigtimedwait([], 0.02)


def test_a_kill_costs_a_shard(photos: Path, tmp_path: Path) -> None:
    folder, whole = tmp_path / "v", tmp_path / "whole"
    run(whole, photos)
    for shards in (1, 2):
        kill(photos, folder, "local", shards)
        there = len(state(folder))
        assert there >= shards
    done = run(folder, photos)
    assert done.before == sum(open_plan(folder).size(shard) for shard in range(there))
    assert rows(folder) == rows(whole)


def test_ray_makes_the_same_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    # The processes of Ray find this file.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    run(tmp_path / "local", photos)
    (tmp_path / "ray").mkdir()
    plan(tmp_path / "ray", photos)
    (tmp_path / "ray" / "00001.parquet").write_bytes((tmp_path / "local" / "00001.parquet").read_bytes())
    told: list[int] = []
    done = run(tmp_path / "ray", photos, engine="ray", workers=2, advance=lambda items, text: told.append(items))
    assert (done.embedded, done.before, told[-1]) == (7, 5, 7)
    assert [Path(skip.input).name for skip in done.skipped] == ["05b.png"]
    assert state(tmp_path / "ray") == state(tmp_path / "local")
    import ray

    assert not ray.is_initialized()


def test_what_is_wrong_comes_back_from_a_process_of_ray_in_a_line(photos: Path, tmp_path: Path) -> None:
    from vlm.ingest.ray_engine import Embedding

    def fails() -> Model:
        raise BadInput("no such model")

    plan(tmp_path / "v", photos)
    assert Embedding(Job(tmp_path / "v", fails))({"shard": np.array([1])}) == {
        "items": [0],
        "problem": ["no such model"],
    }
    (tmp_path / "v" / ".00002.tries").write_bytes(b"...")
    (problem,) = Embedding(Job(tmp_path / "v", eye))({"shard": np.array([2])})["problem"]
    assert "shard 2 ended its process 3 times" in problem
    run(tmp_path / "v", photos)
    assert not list((tmp_path / "v").glob(".0*"))
