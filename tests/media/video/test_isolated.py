"""A decoder that hangs, crashes or grows is one line of error, or nothing at all."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import number_seen, write_video

from vlm.errors import BadInput, VlmError
from vlm.media.process import supervisor, worker
from vlm.media.process.supervisor import Pool, Process
from vlm.media.video import isolated
from vlm.media.video.isolated import IsolatedDecoder
from vlm.media.video.reader import open_video

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.mp4", range(12))


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Process]]:
    """The processes that the test started; none waits from before, and none is left."""
    found: list[Process] = []

    class Noted(Process):
        def __init__(self, module: str) -> None:
            super().__init__(module)
            found.append(self)

    monkeypatch.setattr(supervisor, "Process", Noted)
    monkeypatch.setattr(isolated, "_pool", Pool("vlm.media.video.worker"))
    yield found
    for process in found:
        process.stop()


def broken(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Processes that start from now on run `statement` first."""
    names = "from vlm.media.process import worker; from vlm.media.video.backends.pyav import PyavDecoder"
    patched = f"{names}; {statement}; main()"
    monkeypatch.setattr(supervisor, "_START", supervisor._START.replace("main()", patched))


def test_one_process_serves_clip_after_clip(clip: Path, tmp_path: Path, started: list[Process]) -> None:
    open_video(clip).frames([3])
    (tmp_path / "b.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(BadInput, match="expected a video"):
        open_video(tmp_path / "b.mp4")
    assert number_seen(open_video(clip).frames([3])[0]) == 3
    assert len(started) == 1
    assert started[0].alive()


def test_a_hung_decoder_is_stopped_and_reported(
    clip: Path, started: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken(patch, "import time; PyavDecoder.frames = lambda self, wanted: time.sleep(600)")
        reader = open_video(clip, deadline=2)
        with pytest.raises(BadInput, match=r"a\.mp4: .*no frame for 2 s: its decoder hung and was stopped$"):
            reader.frames([3])
    assert not started[0].alive()
    assert number_seen(reader.frames([3])[0]) == 3  # in a new process
    assert len(started) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_file_that_never_answers_is_given_up(tmp_path: Path, started: list[Process]) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(BadInput, match="got a device, pipe or socket"):
        open_video(tmp_path / "a.mp4")
    with pytest.raises(BadInput, match=r"no frame for 0\.5 s: .*stopped"):  # as if it were a file when it was looked at
        IsolatedDecoder(tmp_path / "a.mp4", "pyav", deadline=0.5)
    assert not started[0].alive()


def test_a_decoder_that_crashes_is_reported(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        broken(patch, "import os; PyavDecoder.frames = lambda self, wanted: os.abort()")
        reader = open_video(clip)
        with pytest.raises(BadInput, match=r"a\.mp4: .*ended the decoder \(signal 6\)"):
            reader.frames([3])
    assert number_seen(reader.frames([5])[0]) == 5


def test_a_process_that_was_ended_while_it_waited_is_no_fault_of_the_next_file(
    clip: Path, started: list[Process]
) -> None:
    reader = open_video(clip)
    started[0].stop()
    assert number_seen(reader.frames([5])[0]) == 5
    assert len(started) == 2


def test_a_file_that_goes_away_is_reported(clip: Path) -> None:
    reader = open_video(clip)
    clip.unlink()
    with pytest.raises(VlmError, match=r"a\.mp4: FileNotFoundError"):
        reader.frames([3])


def test_slow_is_not_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder whose packets come by says so, however long no frame is wanted."""
    sent: list[dict[str, object]] = []
    monkeypatch.setattr(worker, "send", lambda pipe, message, array=None, shared=None: sent.append(message))
    monkeypatch.setattr(worker.time, "monotonic", iter([0.0, 0.1, 0.9, 0.9, 1.0]).__next__)
    reply = worker.Reply(1)
    reply.alive()  # after 0.1 s: too early to say anything
    reply.alive()  # after 0.9 s
    assert sent == [{"sign": "alive"}]


def test_a_process_that_grew_is_replaced(clip: Path, started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "worker.FULL_BYTES = 0")
    assert number_seen(open_video(clip).frames([3])[0]) == 3  # two requests
    assert len(started) == 2
    assert not any(process.alive() for process in started)


def test_memory_of_whoever_asks_is_not_the_decoder_s(
    clip: Path, started: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = np.ones(2**29, np.uint8)  # as a model's weights would be
    broken(monkeypatch, f"worker.FULL_BYTES = {held.nbytes}")
    open_video(clip).frames([3])
    open_video(clip).frames([4])
    assert len(started) == 1


def test_a_timeline_is_not_the_next_asker_s(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may be asked by another thread as soon as it waits again, and answers into the same memory."""
    other = write_video(tmp_path / "b.mp4", range(0, 36, 3))
    keep, pool = isolated._pool.keep, isolated._pool

    def kept_and_asked(process: Process) -> None:
        keep(process)
        monkeypatch.setattr(pool, "keep", keep)
        open_video(other)

    expected = open_video(clip).times_N
    monkeypatch.setattr(pool, "keep", kept_and_asked)
    assert open_video(clip).times_N.tolist() == expected.tolist() != open_video(other).times_N.tolist()


def test_threads_have_a_process_each(clip: Path) -> None:
    found: list[int] = []

    def ask() -> None:
        found.extend(number_seen(frame) for frame in open_video(clip).frames(range(12)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([*range(12)] * 3)


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_starts_its_own(clip: Path) -> None:
    """In a new interpreter: this one has threads, which do not go well with fork."""
    code = (
        "import os, sys\n"
        "from vlm.media.process import supervisor\n"
        "from vlm.media.video.reader import open_video\n"
        "reader, start, started = open_video(sys.argv[1]), supervisor.Process, []\n"
        "supervisor.Process = lambda module: (started.append(start(module)), started[-1])[1]\n"
        "child = os.fork()\n"
        "frames = reader.frames([3])\n"
        "if child == 0:\n"
        "    os._exit(len(frames) != 1 or len(started) != 1)\n"
        "assert len(frames) == 1 and started == []\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code, clip], check=True, timeout=60)


@pytest.mark.process
def test_a_process_ends_with_the_one_that_started_it(clip: Path) -> None:
    code = (
        "import os, sys\n"
        "from vlm.media.process.supervisor import Process\n"
        "process = Process('vlm.media.video.worker')\n"
        "request = {'path': sys.argv[1], 'backend': 'pyav', 'do': 'timeline', 'folder': '.'}\n"
        "list(process.ask(request, 30))\n"
        "print(process.pid, flush=True); os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, clip], stdout=subprocess.PIPE, text=True, timeout=60)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the decoding process is still there")


@linux
def test_memory_stays_flat_over_200_clips(tmp_path: Path, started: list[Process]) -> None:
    kinds = [
        write_video(tmp_path / "a.mp4", range(20), b_frames=2),
        write_video(tmp_path / "b.mkv", [0, 3, 4, 9, 20, 21], size=(160, 120)),
        write_video(tmp_path / "c.avi", range(10), codec="mpeg4"),
    ]
    sizes = []
    for number in range(200):
        path = tmp_path / f"{number}{kinds[number % 3].suffix}"
        shutil.copy(kinds[number % 3], path)
        with open_video(path) as reader:
            count = len(reader.times_N)
            assert number_seen(reader.frames([0, count // 2, count - 1])[1]) == count // 2
        path.unlink()
        if number in (60, 199):
            gc.collect()
            sizes.append((resident("self"), resident(started[0].pid)))
    (mine_before, theirs_before), (mine, theirs) = sizes
    assert mine - mine_before < 10
    assert theirs - theirs_before < 10
    assert len(started) == 1


def resident(process: int | str) -> float:
    """MB in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
