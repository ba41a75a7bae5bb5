"""The rates of this machine, one core: half a minute of work.

Rates are of the processor's time, so that what else the machine does takes little from them; how a search's time
scatters is of the clock's, others' work included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vlm import assets
from vlm.capacity.inputs import Measured
from vlm.index.base import Vectors
from vlm.media.folders import list_media
from vlm.media.kinds import is_image
from vlm.media.open import Media, open_media

SECONDS = 8.0
"""Of each measurement that can go on for as long as one likes."""
SCANNED, CALLS = 40_000, 400
WRITTEN = 20_000


def measure(embed: Callable[[Sequence[Media]], Vectors], width: int, where: str) -> Measured:
    """`embed` is timed on the samples, from their files on; the rest on random vectors of `width`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images = _images(embed)
        rate, sigma = _scan(width)
    finally:
        torch.set_num_threads(threads)
    write, read = _files(width)
    return Measured(
        where=where,
        images_per_second=_short(images),
        scan_gigabytes_per_second=_short(rate / 1e9),
        search_sigma=_short(sigma),
        write_megabytes_per_second=_short(write / 1e6),
        read_megabytes_per_second=_short(read / 1e6),
    )


def _images(embed: Callable[[Sequence[Media]], Vectors]) -> float:
    files = [file for file in list_media(assets.root() / "data" / "samples") if is_image(file)]
    embed([open_media(files[0])])
    began, done = time.process_time(), 0
    while (passed := time.process_time() - began) < SECONDS:
        embed([open_media(file) for file in files])
        done += len(files)
    return done / passed


def _scan(width: int) -> tuple[float, float]:
    """Bytes a second, and how the logarithm of the time scatters: from the median to p99."""
    vectors_ND, query_D = torch.randn(SCANNED, width), torch.randn(width)
    clock, own = [], []
    for _ in range(CALLS):
        began = time.perf_counter(), time.process_time()
        torch.mv(vectors_ND, query_D).topk(10)
        clock.append(time.perf_counter() - began[0])
        own.append(time.process_time() - began[1])
    p50, p99 = np.quantile(clock[CALLS // 10 :], [0.5, 0.99])
    sigma = float(np.log(p99 / p50)) / 2.326  # the normal distribution's 99th percentile
    return 4 * SCANNED * width / float(np.median(own)), sigma


def _files(width: int) -> tuple[float, float]:
    """Bytes a second into a file of parquet that is on the disk, and out of it (perhaps of the system's memory)."""
    import os

    import pyarrow as pa
    from pyarrow import parquet

    vectors_ND = np.random.default_rng(0).standard_normal((WRITTEN, width), dtype=np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), width)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "v.parquet"
        began = time.perf_counter()
        with file.open("wb") as stream:
            parquet.write_table(pa.table({"vector": flat}), stream, compression="zstd")
            stream.flush()
            os.fsync(stream.fileno())
        written = time.perf_counter() - began
        began = time.perf_counter()
        parquet.read_table(file)
        read = time.perf_counter() - began
    return vectors_ND.nbytes / written, vectors_ND.nbytes / read


def _short(value: float) -> float:
    return float(f"{value:.3g}")
