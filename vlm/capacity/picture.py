"""The plan as one PNG: how the job comes to its end, and what waiting for the slowest shard costs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from vlm.capacity.inputs import Scale
from vlm.capacity.plan import Planned
from vlm.files import atomic_write

SPOTS = 400
"""Points of a curve."""


def draw(scale: Scale, plan: Planned, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    job, fan = figure.subplots(1, 2)
    ideal = plan.jobs[0].ideal_hours
    job.plot([0, ideal], [0, 100], "--", color="gray", label=f"nothing fails: {ideal:.3g} h")
    for each in plan.jobs:
        done = np.linspace(0, each.shards - 1, min(SPOTS, each.shards)).astype(int)
        label = f"{each.name}: {each.done_hours[-1]:.3g} h"
        job.plot(each.done_hours[done], 100 * (done + 1) / each.shards, label=label)
    job.set(title=f"embedding {scale.chosen.items:,.0f} items on {scale.chosen.machines} machines")
    job.set(xlabel="hours", ylabel="% of the shards done", ylim=(0, 103), xlim=(0, None))

    serving = plan.serving
    for tails, what, color in ((serving.tails, "", "C3"), (serving.hedged, ", late shards asked twice", "C2")):
        shards = [tail.shards for tail in tails]
        fan.plot(shards, [tail.p99 for tail in tails], "o-", ms=4, color=color, label=f"p99{what}")
        fan.plot(shards, [tail.p50 for tail in tails], "o:", ms=3, color=color, label=f"median{what}")
    fan.set(title=f"a query that asks all shards, {serving.scan_ms:.3g} ms of scanning in each")
    fan.set(xlabel="shards asked", ylabel="milliseconds", xscale="log", yscale="log")
    fan.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    fan.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axis in (job, fan):
        axis.grid(alpha=0.3, which="both" if axis is fan else "major")
        axis.legend(fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    atomic_write(path, data.getvalue())
