"""What a plan is made of. Each number says its unit in its name; the three parts say where it comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vlm.config import Config

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

CODES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "PQ of 8": 1 / 8}
"""Bytes a dimension; `PQ of 8` gives eight dimensions one byte (Jegou et al. 2011)."""
WIDTHS = (64, 128, 256, 512)


class Chosen(Config):
    """What is wanted."""

    items: Positive = 1e9
    width: int = Field(default=512, ge=1)
    machines: int = Field(default=200, ge=1)
    """That embed."""
    shard_items: Positive = 10_000
    """Of a file of vectors; what a failed machine loses at most."""
    index_shards: int = Field(default=100, ge=1)
    """Parts of the index that a query asks all of."""
    replicas: int = Field(default=2, ge=1)
    code: str = "int8"
    """Of the vectors held in memory, a key of `CODES`."""
    partitions: int = Field(default=4000, ge=1)
    """Of an index shard (IVF); an item is in one."""
    probes: int = Field(default=20, ge=1)
    """Partitions that a query looks at in every shard."""
    queries_per_second: Positive = 100
    hedge_quantile: Share = 0.95
    """A shard that has not answered by this quantile of its latency is asked again, on a replica."""


class Measured(Config):
    """By `vlm plan --measure`, on one core."""

    where: str
    images_per_second: Positive
    """Read, decoded and embedded."""
    scan_gigabytes_per_second: Positive
    """Of vectors multiplied with one query."""
    search_sigma: Positive
    """Of the logarithm of a scan's time: how it scatters."""
    write_megabytes_per_second: Positive
    """Of vectors into parquet."""
    read_megabytes_per_second: Positive


class Assumed(Config):
    """Prices are of the order that large providers list on demand; failures and pauses are guesses to be varied."""

    image_kilobytes: Positive = 100
    metadata_bytes: Positive = 300
    """Of an item, compressed."""
    entry_bytes: Positive = 100
    """Of an item in memory beside its vector: id, place in its partition, filters."""
    machine_cores: int = Field(default=16, ge=1)
    machine_gigabytes: Positive = 128
    machine_dollars_an_hour: Positive = 0.8
    gpu_images_per_second: Positive = 2000
    gpu_dollars_an_hour: Positive = 3.0
    store_dollars_a_gigabyte_month: Positive = 0.023
    store_dollars_a_million_reads: Positive = 0.4
    store_first_byte_ms: Positive = 30
    store_sigma: Positive = 0.5
    """Of the logarithm of the time to the first byte."""
    store_megabytes_per_second: Positive = 80
    """Of one read."""
    machine_hours_to_failure: Positive = 500
    spot_hours_to_failure: Positive = 20
    spot_price_share: Positive = 0.35
    restart_minutes: Positive = 5
    attempt_failure: Share = 0.01
    """Of a shard's tries that end in an error: a time-out, a full disk."""
    duration_sigma: Positive = 0.1
    """Of the logarithm of a shard's time."""
    slow_machines: Share = 0.02
    slow_times: Positive = 3
    network_ms: Positive = 0.5
    pause_share: Share = 0.001
    """Of a shard's answers that are held up: a collection of garbage, a lost packet, a neighbour."""
    pause_ms: Positive = 50
    availability: Share = 0.999
    """Of a machine that serves."""
    memory_share: Positive = 0.7
    """Of a machine's memory that vectors may take, and of its cores that queries may."""


class Scale(Config):
    chosen: Chosen = Chosen()
    measured: Measured
    assumed: Assumed = Assumed()
