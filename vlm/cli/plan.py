"""`vlm plan`: what a collection too large to try would take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import AsJson, ModelName, Offline
from vlm.cli.output import emit, say, table, working

if TYPE_CHECKING:
    from vlm.capacity.inputs import Measured, Scale
    from vlm.capacity.plan import Code, Planned


def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="What is chosen, measured and assumed, as YAML.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Other values: chosen.items=1e8.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine's rates, half a minute, in place of the config's.")
    ] = False,
    model: ModelName = "nano",
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Draw the picture here, a PNG.")] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Say what embedding, keeping and searching a very large collection takes: hours, dollars, memory, latencies.

    The embedding job and the queries are simulated, with machines that fail and shards that are late.
    """
    from vlm import config as configs
    from vlm.capacity.inputs import Scale
    from vlm.capacity.plan import planned

    scale = configs.load(Scale, config, overrides)
    with working("plan") as advance:
        if measure:
            advance(-1, "measuring")
            scale = scale.model_copy(update={"measured": _measured(model, scale.chosen.width, offline)})
            for key, value in scale.measured.model_dump().items():
                say(f"measured: {key}: {value}")
        advance(-1, "simulating")
        done = planned(scale)
    if to is not None:
        from vlm.capacity.picture import draw

        draw(scale, done, to)
    if as_json:
        result: dict[str, Any] = asdict(done)
        for job in result["jobs"]:
            del job["done_hours"]
        emit({"inputs": scale.model_dump(), **result})
    else:
        _print(scale, done)


def _measured(model: str, width: int, offline: bool) -> Measured:
    import platform

    from vlm.capacity.measure import measure
    from vlm.cli.session import lazy_model

    loaded = lazy_model(model, offline)()
    return measure(loaded.embed_images, width, f"{model}, one core, {platform.machine()}")


def _print(scale: Scale, done: Planned) -> None:
    def month(code: Code) -> str:
        return f"{code.dollars_a_month:,.0f}"

    serving, store, chosen = done.serving, done.store, scale.chosen
    table(
        ["embedding", "shards", "hours", "machine-hours", "tries a shard", "lost", "dollars"],
        [
            [
                f"{chosen.machines} machines, {job.name}",
                f"{job.shards:,}",
                f"{job.hours:.1f} (nothing fails: {job.ideal_hours:.1f})",
                f"{job.machine_hours:,.0f}",
                f"{job.tries_a_shard:.3f}",
                f"{100 * job.lost_share:.1f} %",
                f"{job.dollars:,.0f}",
            ]
            for job in done.jobs
        ]
        + [["by GPU, no failures", "", f"{done.gpu_hours:,.0f} of one", "", "", "", f"{done.gpu_dollars:,.0f}"]],
    )
    table(
        ["vectors in memory", "width", "bytes each", "TB", f"machines, {chosen.replicas} replicas", "dollars a month"],
        [
            [c.code, str(c.width), f"{c.vector_bytes:g}", f"{c.terabytes:.3f}", str(c.machines), month(c)]
            for c in done.codes
        ],
    )  # fmt: skip
    table(
        ["a query asks", "median, ms", "p99, ms", "p99 where late shards are asked twice", "asked twice"],
        [
            [f"{a.shards:,} shards", f"{a.p50:.1f}", f"{a.p99:.1f}", f"{b.p99:.1f}", f"{100 * b.asked_again:.1f} %"]
            for a, b in zip(serving.tails, serving.hedged, strict=True)
        ]
        + [[f"object storage, {store.tail.shards:,} reads", f"{store.tail.p50:.0f}", f"{store.tail.p99:.0f}", "", ""]],
    )
    bill = f"{serving.dollars_a_month:,.0f} dollars a month"
    table(
        ["otherwise", ""],
        [
            ["pictures / files of vectors", f"{done.image_terabytes:.3g} TB / {done.vector_files_terabytes:.3g} TB"],
            ["vectors written and loaded", f"{done.load_hours:.2f} hours, a core for each index shard"],
            ["serving", f"{serving.machines} machines, {bill}; a query takes {serving.core_seconds:.3g} core-seconds"],
            ["every shard has a replica up", f"{100 * serving.complete_share:.4f} % of the time"],
            ["object storage", f"{store.dollars_a_month:,.0f} dollars a month, {store.dollars_a_million_queries:,.0f} "
             f"a million queries; cheaper below {store.even_queries_per_second:.2g} queries a second"],
        ],
    )  # fmt: skip
