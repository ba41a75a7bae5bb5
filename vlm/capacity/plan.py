"""From inputs to hours, dollars, bytes and milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from vlm.capacity.fan_out import Draw, Tail, shard_latency, tail
from vlm.capacity.inputs import CODES, WIDTHS, Scale
from vlm.capacity.job import Machines, simulate
from vlm.errors import BadInput, unknown

RUNS = 5
"""Of the embedding job, each with failures of its own."""
COARSE = 100
"""How much larger the shards are of a job that shows what too large ones cost."""
QUERIES = 4000
FANS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MAX_SHARDS = 1_000_000
HOURS_A_MONTH = 730
GB, TB = 1e9, 1e12


@dataclass(frozen=True)
class Job:
    name: str
    shards: int
    ideal_hours: float
    """Without failures, errors, scatter and slow machines."""
    hours: float
    longest_hours: float
    """Of the runs."""
    machine_hours: float
    dollars: float
    tries_a_shard: float
    lost_share: float
    """Of the machines' time, for tries that came to nothing and restarts."""
    done_hours: NDArray[np.float64]
    """When each shard was there, of the first run."""


@dataclass(frozen=True)
class Code:
    """Vectors of one code and width."""

    code: str
    width: int
    vector_bytes: float
    terabytes: float
    """Of the vectors alone, once."""
    machines: int
    """That hold all of it, entries and replicas counted."""
    dollars_a_month: float


@dataclass(frozen=True)
class Serving:
    scan_ms: float
    """Of a query in one shard, on one core."""
    core_seconds: float
    """Of a query in all shards."""
    machines: int
    """For memory or for queries, whichever needs more."""
    dollars_a_month: float
    complete_share: float
    """Of queries whose every shard has a replica that is up."""
    tails: list[Tail]
    hedged: list[Tail]


@dataclass(frozen=True)
class Store:
    """Partitions read from object storage for every query, nothing in memory but centres."""

    reads: float
    dollars_a_million_queries: float
    dollars_a_month: float
    """To keep the vectors, before any query."""
    tail: Tail
    even_queries_per_second: float
    """From here on machines that hold the vectors in memory cost less."""


@dataclass(frozen=True)
class Planned:
    jobs: list[Job]
    gpu_hours: float
    gpu_dollars: float
    image_terabytes: float
    vector_files_terabytes: float
    """Of parquet: float32 and metadata."""
    load_hours: float
    """To write the vectors out and read them back into the index, a core of each shard's machine."""
    codes: list[Code]
    serving: Serving
    store: Store


def planned(scale: Scale, seed: int = 0) -> Planned:
    """The whole plan; the same inputs give the same numbers. Raises `BadInput` for too many shards to simulate."""
    chosen, assumed, measured = scale.chosen, scale.assumed, scale.measured
    if chosen.code not in CODES:
        raise unknown("code", chosen.code, CODES)
    if chosen.items / chosen.shard_items > MAX_SHARDS:
        shards = ceil(chosen.items / chosen.shard_items)
        raise BadInput(f"chosen.shard_items: expected at most {MAX_SHARDS} shards to simulate, got {shards}")
    rng = np.random.default_rng(seed)
    gpu_hours = chosen.items / assumed.gpu_images_per_second / 3600
    files = chosen.items * (4 * chosen.width + assumed.metadata_bytes)
    each_way = 1 / measured.write_megabytes_per_second + 1 / measured.read_megabytes_per_second
    serving = _serving(scale)
    spot = assumed.spot_hours_to_failure, assumed.spot_price_share
    larger = chosen.model_copy(update={"shard_items": COARSE * chosen.shard_items})
    coarse = scale.model_copy(update={"chosen": larger})
    return Planned(
        jobs=[
            _job(scale, "on demand", assumed.machine_hours_to_failure, 1.0, rng),
            _job(scale, "spot", *spot, rng),
            _job(coarse, f"spot, shards {COARSE} times as large", *spot, rng),
        ],
        gpu_hours=gpu_hours,
        gpu_dollars=gpu_hours * assumed.gpu_dollars_an_hour,
        image_terabytes=chosen.items * assumed.image_kilobytes * 1e3 / TB,
        vector_files_terabytes=files / TB,
        load_hours=files / 1e6 * each_way / chosen.index_shards / 3600,
        codes=[_code(scale, code, width) for width in sorted({*WIDTHS, chosen.width}) for code in CODES],
        serving=serving,
        store=_store(scale, serving, rng),
    )


def _job(scale: Scale, name: str, hours_to_failure: float, price: float, rng: np.random.Generator) -> Job:
    chosen, assumed = scale.chosen, scale.assumed
    shards = ceil(chosen.items / chosen.shard_items)
    hours = chosen.shard_items / (assumed.machine_cores * scale.measured.images_per_second) / 3600
    machines = Machines(
        chosen.machines,
        failure_rate=1 / hours_to_failure,
        restart=assumed.restart_minutes / 60,
        attempt_failure=assumed.attempt_failure,
        sigma=assumed.duration_sigma,
        slow_share=assumed.slow_machines,
        slow_times=assumed.slow_times,
    )
    runs = [simulate(shards, hours, machines, rng) for _ in range(RUNS)]
    mean = float(np.mean([run.done_S[-1] for run in runs]))
    return Job(
        name=name,
        shards=shards,
        ideal_hours=ceil(shards / chosen.machines) * hours,
        hours=mean,
        longest_hours=float(max(run.done_S[-1] for run in runs)),
        machine_hours=mean * chosen.machines,
        dollars=mean * chosen.machines * assumed.machine_dollars_an_hour * price,
        tries_a_shard=float(np.mean([run.tries for run in runs])) / shards,
        lost_share=float(np.mean([run.lost / (run.done_S[-1] * chosen.machines) for run in runs])),
        done_hours=runs[0].done_S,
    )


def _code(scale: Scale, code: str, width: int) -> Code:
    chosen, assumed = scale.chosen, scale.assumed
    vector = CODES[code] * width
    held = chosen.items * (vector + assumed.entry_bytes) * chosen.replicas
    machines = ceil(held / (assumed.machine_gigabytes * assumed.memory_share * GB))
    month = machines * assumed.machine_dollars_an_hour * HOURS_A_MONTH
    return Code(code, width, vector, chosen.items * vector / TB, machines, month)


def _serving(scale: Scale) -> Serving:
    chosen, assumed, measured = scale.chosen, scale.assumed, scale.measured
    read = _probed(scale) * CODES[chosen.code] * chosen.width
    scan = read / (measured.scan_gigabytes_per_second * GB)
    core_seconds = scan * chosen.index_shards
    cores = core_seconds * chosen.queries_per_second / assumed.memory_share
    held = _code(scale, chosen.code, chosen.width)
    machines = max(held.machines, ceil(cores / assumed.machine_cores))

    draw = shard_latency(assumed.network_ms, 1e3 * scan, measured.search_sigma, assumed.pause_share, assumed.pause_ms)
    fans = sorted({*FANS, chosen.index_shards})
    return Serving(
        scan_ms=1e3 * scan,
        core_seconds=core_seconds,
        machines=machines,
        dollars_a_month=machines * assumed.machine_dollars_an_hour * HOURS_A_MONTH,
        complete_share=(1 - (1 - assumed.availability) ** chosen.replicas) ** chosen.index_shards,
        tails=[tail(draw, shards, QUERIES, np.random.default_rng(shards)) for shards in fans],
        hedged=[tail(draw, shards, QUERIES, np.random.default_rng(shards), chosen.hedge_quantile) for shards in fans],
    )


def _store(scale: Scale, serving: Serving, rng: np.random.Generator) -> Store:
    """Of every shard a read for each partition, all at once; after them one of the rows that are scored again."""
    chosen, assumed = scale.chosen, scale.assumed
    reads = chosen.index_shards * (chosen.probes + 1)
    million = reads * assumed.store_dollars_a_million_reads
    partition = _probed(scale) / chosen.probes * CODES[chosen.code] * chosen.width
    transfer = 1e3 * partition / (assumed.store_megabytes_per_second * 1e6)
    draw: Draw = shard_latency(
        transfer + assumed.store_first_byte_ms,  # of the second round
        assumed.store_first_byte_ms,
        assumed.store_sigma,
        assumed.pause_share,
        assumed.pause_ms,
    )
    kept = chosen.items * (4 + CODES[chosen.code]) * chosen.width / GB * assumed.store_dollars_a_gigabyte_month
    saved = max(0.0, serving.dollars_a_month - kept)
    return Store(
        reads=reads,
        dollars_a_million_queries=million,
        dollars_a_month=kept,
        tail=tail(draw, reads, QUERIES, rng),
        even_queries_per_second=saved / (million / 1e6) / (HOURS_A_MONTH * 3600),
    )


def _probed(scale: Scale) -> float:
    """Vectors of one shard that a query is multiplied with."""
    chosen = scale.chosen
    return chosen.items / chosen.index_shards * min(1.0, chosen.probes / chosen.partitions)
