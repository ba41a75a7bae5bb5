"""`vlm bench`."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

from vlm.cli.options import AsJson
from vlm.cli.output import emit, table, working


class Suite(str, Enum):
    metrics = "metrics"


def bench(
    suite: Annotated[Suite, typer.Argument(metavar="SUITE", help="What to measure: metrics.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Turns each side takes.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Measure speed against the peers installed here, in turns: how many times faster, the median of the rounds."""
    from vlm.bench import metrics
    from vlm.bench.timing import Ratio

    with working(f"bench {suite.value}") as advance:
        results = list(metrics.run(rounds, lambda text: advance(-1, text)))
    if as_json:
        emit({"results": [asdict(result) for result in results]})
        return
    rows = []
    for result in results:
        if isinstance(result, Ratio):
            times = f"{result.times:.1f} ({result.least:.1f} to {result.most:.1f})"
            seconds = [f"{result.ours_seconds:.3f}", f"{result.peer_seconds:.3f}"]
            rows.append([result.what, result.peer, *seconds, times, result.note])
        else:
            rows.append([result.what, result.peer, "", "", "not measured", result.why])
    table(["what", "peer", "ours, s", "peer, s", "times faster", "note"], rows)
