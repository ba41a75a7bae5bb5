"""The server that is worn out, as a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from vlm.errors import VlmError

_START = "import sys; from vlm.cli import main; sys.exit(main())"


class Server:
    """`vlm serve retrieval` as a process."""

    def __init__(self, root: Path, engine: str) -> None:
        options = ["--model", "colours", "--root", str(root), "--engine", engine, "--port", "0", "--no-page"]
        command = [sys.executable, "-c", _START, "serve", "retrieval", *options, "--body-mb", "4"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if "serving on" not in line:
            raise VlmError(f"the server did not start: {line.strip()}")
        self.port = int(line.rpartition(":")[2])
        threading.Thread(target=self._drain, daemon=True).start()
        until = time.monotonic() + 300
        while self.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() > until or self.process.poll() is not None:
                raise VlmError("the server was not ready in 300 s")
            time.sleep(0.1)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and JSON. Raises `OSError` or `HTTPException` where the server has gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        finally:
            connection.close()

    def memory_mb(self) -> float:
        """Resident memory; 0 where the system does not say."""
        with contextlib.suppress(OSError):
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20
        return 0.0

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(120)

    def _drain(self) -> None:
        assert self.process.stderr is not None
        for _ in self.process.stderr:
            pass
