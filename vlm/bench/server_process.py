"""A server that is measured or worn out, ours or a peer's, as a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm.errors import VlmError

START_SECONDS = 300.0
LOOK_SECONDS = 0.5
_MAIN = "import sys; from vlm.cli import main; sys.exit(main())"


def vlm_command(*words: str) -> list[str]:
    """`vlm WORDS`, by the Python that runs this."""
    return [sys.executable, "-c", _MAIN, *words]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ServerProcess:
    """It has started, and `ready` is answered with 200."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, ready: str = "/readyz",
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Raises `VlmError` with the last line it said where it does not start."""
        self.name, self.port, self.address = name, port, f"http://127.0.0.1:{port}"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._said, env=environment)
        try:
            while not self._answers(ready):
                if self.process.poll() is not None or time.monotonic() > began + START_SECONDS:
                    raise VlmError(f"{name} did not start: {self._last_line()}")
                time.sleep(0.1)
        except BaseException:
            self.process.kill()
            raise
        self.start_seconds = time.monotonic() - began

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and JSON, or the text of what is none. Raises `OSError` or `HTTPException` where the server has
        gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            answer = connection.getresponse()
            content = answer.read()
            if not (answer.getheader("Content-Type") or "").startswith("application/json"):
                return answer.status, content.decode(errors="replace")
            return answer.status, json.loads(content) if content else None
        finally:
            connection.close()

    def memory_mb(self, kind: str = "Pss") -> float:
        """Of the process and those it started; pages that they share count once (`Pss`) or in each (`Rss`). 0 where the
        system does not say."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(OSError):  # it has ended
                found = re.search(rf"^{kind}:\s+(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
        return total / 1024

    def cpu_seconds(self) -> float:
        """Of all threads so far, of the process and those it started; 0 where the system does not say."""
        ticks = 0
        for process in self._tree():
            with contextlib.suppress(OSError):
                # Behind the name, which may hold anything: user and system time, and those of children that ended.
                ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def watched(self, kinds: Sequence[str] = ("Pss", "Rss")) -> Iterator[dict[str, float]]:
        """The most of each kind of memory so far, in MB."""
        most, over = {kind: self.memory_mb(kind) for kind in kinds}, threading.Event()

        def look() -> None:
            while not over.wait(LOOK_SECONDS):
                most.update({kind: max(most[kind], self.memory_mb(kind)) for kind in kinds})

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield most
        finally:
            over.set()
            thread.join()

    def end(self, number: int) -> int:
        """Send a signal and wait: the exit code."""
        self.process.send_signal(number)
        return self.process.wait(120)

    def close(self) -> None:
        """Let it end, or kill it."""
        self.process.terminate()
        try:
            self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _tree(self) -> Iterator[Path]:
        """In /proc: the process, and those it started."""
        left = [str(self.process.pid)]
        while left:
            process = Path("/proc") / left.pop()
            with contextlib.suppress(OSError):
                for task in (process / "task").iterdir():
                    left += (task / "children").read_text().split()
            yield process

    def _answers(self, path: str) -> bool:
        try:
            return self.ask("GET", path)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _last_line(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")
