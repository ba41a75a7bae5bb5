"""`vlm upload` goes on after it, or the server, was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from serving import VLM, ServerProcess, picture, wait

pytestmark = pytest.mark.process


def test_a_kill_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    """Of the command, which then goes on, and of the server, which it waits for."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(300):
        (folder / f"{n:03d}.png").write_bytes(picture((n % 256, n // 256, 9)))
    port = "0"
    server = ServerProcess(tmp_path / "root", "--port", port)
    port = str(server.client.base_url.port)
    server.client.post("/v1/collections", json={"name": "c"})
    command = [sys.executable, "-c", VLM, "upload", str(folder), "--to", f"http://127.0.0.1:{port}/c", "--json"]

    def count() -> int:
        return int(server.client.get("/v1/collections/c").json()["count"])

    run = subprocess.Popen(command, stdout=subprocess.PIPE)
    wait(count)
    run.kill()
    run.communicate()
    before = 0
    while before != (before := count()):  # what was under way may arrive yet
        time.sleep(1)
    assert 0 < before < 300

    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait(lambda: count() > before)
    server.end(signal.SIGKILL)
    time.sleep(1)
    restarted: list[ServerProcess] = []
    thread = threading.Thread(target=lambda: restarted.append(ServerProcess(tmp_path / "root", "--port", port)))
    thread.start()
    out, _ = run.communicate(timeout=120)
    thread.join()
    assert run.returncode == 0, out
    found = json.loads(out)
    assert (found["stored"], found["skipped"]) == (300, [])
    assert found["unchanged"] >= before
    server = restarted[0]
    assert count() == 300
    assert server.end() == 0
