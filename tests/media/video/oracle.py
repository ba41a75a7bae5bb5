"""FFmpeg's own program, as the truth of what people see; it comes with the package imageio-ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest


def ffmpeg(*arguments: str | Path) -> bytes:
    """What `ffmpeg` writes to its output; the test is skipped where it is not installed."""
    package = pytest.importorskip("imageio_ffmpeg", reason="the package imageio-ffmpeg is not installed")
    command = [package.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def frames_of(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 [N, H, W, 3]: every frame as `ffmpeg` shows it."""
    raw = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)


def times_of(path: Path) -> list[float]:
    """The time of every frame, in seconds."""
    said = ffmpeg("-i", path, "-fps_mode", "passthrough", "-map", "0:v:0", "-f", "framecrc", "-").decode()
    (base,) = [line.split(":")[1] for line in said.splitlines() if line.startswith("#tb 0")]
    above, below = map(int, base.split("/"))
    return [int(line.split(",")[2]) * above / below for line in said.splitlines() if not line.startswith("#")]
