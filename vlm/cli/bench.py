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
    moe = "moe"
    decode = "decode"
    language = "language"
    video = "video"


def bench(
    suite: Annotated[
        Suite,
        typer.Argument(metavar="SUITE", help="What to measure: metrics, moe, decode, language (these two), or video."),
    ],
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Turns each side takes.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Measure speed against the peers installed here, in turns: how many times faster, the median of the rounds."""
    from vlm.bench import language, metrics, video
    from vlm.bench.timing import Ratio

    suites = {
        "metrics": metrics.run,
        "moe": language.moe,
        "decode": language.decode,
        "language": language.run,
        "video": video.run,
    }
    with working(f"bench {suite.value}") as advance:
        results = list(suites[suite.value](rounds, lambda text: advance(-1, text)))
    if as_json:
        emit({"results": [asdict(result) for result in results]})
        return
    rows = []
    for result in results:
        if isinstance(result, Ratio):
            times = f"{result.times:.3g} ({result.least:.3g} to {result.most:.3g})"
            seconds = [f"{result.ours_seconds:.3g}", f"{result.peer_seconds:.3g}"]
            rows.append([result.what, result.peer, *seconds, times, result.note])
        else:
            rows.append([result.what, result.peer, "", "", "not measured", result.why])
    table(["what", "peer", "ours, s", "peer, s", "times faster", "note"], rows)
