"""`vlm bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.options import AsJson
from vlm.cli.output import emit, say, table, working

if TYPE_CHECKING:
    from vlm.bench.chat import Times
    from vlm.bench.drafts import Row
    from vlm.bench.timing import Result, Say


class Suite(str, Enum):
    metrics = "metrics"
    moe = "moe"
    decode = "decode"
    language = "language"
    vision = "vision"
    video = "video"
    alignment = "alignment"
    length = "length"
    retrieval = "retrieval"
    service = "service"
    soak = "soak"
    chat = "chat"
    chat_soak = "chat-soak"
    drafts = "drafts"


def bench(
    suite: Annotated[
        Suite,
        typer.Argument(
            metavar="SUITE",
            help="metrics, moe, decode, language (both of these), vision, video, alignment (contrastive losses), "
            "retrieval (search), length (the cost of long texts), service (a retrieval server beside a naive one), "
            "soak (one worn out), chat (a chat server beside transformers'), chat-soak (one worn out), or drafts "
            "(replies with guesses and without).",
        ),
    ],
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Turns each side takes.")] = 5,
    limit: Annotated[
        int,
        typer.Option("--limit", min=1024, metavar="N", help="length: tokens of the longest text; retrieval: vectors."),
    ] = 131072,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="length: draw the picture here, a PNG.")
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.05, metavar="M", help="soak, chat-soak: how long.")
    ] = 10.0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="chat, chat-soak: a folder or card; else random SmolVLM-256M. drafts: nano."
        ),
    ] = None,
    draft: Annotated[
        str | None, typer.Option("--draft", metavar="NAME", help="drafts: a small model that guesses for --model.")
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", min=1, metavar="N", help="chat, drafts: 1, 4 and 16; chat-soak: 64.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed against the peers installed here, in turns: how many times faster, the median of the rounds.

    `length` has no peer: it measures designs of attention against the length of the text, some ten minutes by default.
    """
    if suite is Suite.length:
        _length(limit, rounds, to, as_json)
        return
    if suite is Suite.service:
        _service(rounds, as_json)
        return
    if suite is Suite.soak:
        _soak(minutes, as_json)
        return
    if suite is Suite.chat:
        _chat(model, rounds, clients, as_json)
        return
    if suite is Suite.chat_soak:
        _chat_soak(model, minutes, clients, as_json)
        return
    if suite is Suite.drafts:
        _drafts(model or "nano", draft, rounds, clients, as_json)
        return
    from vlm.bench import alignment, decode, metrics, moe, retrieval, video, vision
    from vlm.bench.machine import machine
    from vlm.bench.timing import Ratio

    suites: dict[str, list[Callable[[int, Say], Iterator[Result]]]] = {
        "metrics": [metrics.run],
        "moe": [moe.run],
        "decode": [decode.run],
        "language": [moe.run, decode.run],
        "vision": [vision.run],
        "video": [video.run],
        "alignment": [alignment.run],
        "retrieval": [partial(retrieval.run, limit=limit)],
    }
    results: list[Result] = []
    say(f"on {machine()}")
    with working(f"bench {suite.value}") as advance:
        for run in suites[suite.value]:
            for result in run(rounds, lambda text: advance(-1, text)):
                results.append(result)
                # At once: the whole takes long, and what was measured is not to be lost with it.
                say(f"{result.what}, {result.peer}: {_times(result)}")
    if as_json:
        emit({"machine": machine(), "results": [asdict(result) for result in results]})
        return
    rows = []
    for result in results:
        if isinstance(result, Ratio):
            seconds = [f"{result.ours_seconds:.3g}", f"{result.peer_seconds:.3g}"]
            rows.append([result.what, result.peer, *seconds, _times(result), result.note])
        else:
            rows.append([result.what, result.peer, "", "", _times(result), result.why])
    table(["what", "peer", "ours, s", "peer, s", "times faster", "note"], rows)


def _times(result: Result | Times | Row) -> str:
    from vlm.bench.timing import Missing

    if isinstance(result, Missing):
        return "not measured"
    return f"{result.times:.3g} ({result.least:.3g} to {result.most:.3g})"


def _length(limit: int, rounds: int, to: Path | None, as_json: bool) -> None:
    from vlm.bench.length import draw, length
    from vlm.bench.machine import machine

    say(f"on {machine()}")
    with working("bench length") as advance:
        points = list(length(limit, rounds, lambda text: advance(-1, text)))
    if to is not None:
        draw(points, to)
    if as_json:
        emit({"machine": machine(), "results": [asdict(point) for point in points]})
        return
    rows = []
    for point in points:
        share = f"{100 * point.choosing_seconds / point.read_seconds:.0f} %" if point.choosing_seconds else ""
        expanded = f"{1e3 * point.expanded_seconds:.3g}" if point.expanded_seconds else ""
        peak = f"{point.peak_bytes / 2**20:.0f}" if point.peak_bytes else ""
        times = [f"{1e6 * point.read_seconds:.0f}", share, f"{1e3 * point.decode_seconds:.3g}", expanded]
        sizes = [f"{point.whole_seconds:.0f}", f"{point.cache_bytes / 2**20:.0f}", peak]
        rows.append([point.design, f"{point.tokens:,}", *times, *sizes])
    columns = ["read, us", "chosen in", "decode, ms", "expanded", "text, s", "cache, MB", "peak, MB"]
    table(["design", "tokens", *columns], rows)


def _service(rounds: int, as_json: bool) -> None:
    from vlm.bench.service import compare

    with working("bench service") as advance:
        found = compare("nano", rounds, 10.0, lambda text: advance(-1, text))
    if as_json:
        emit(asdict(found))
        return
    rows = [
        [row.service, row.case, *(_figure(figure) if figure else "" for figure in
         (row.searches, row.p50_ms, row.p99_ms, row.uploads))]
        for row in found.rows
    ]  # fmt: skip
    say(f"on {found.machine}")
    table(["service", "load", "searches/s", "p50, ms", "p99, ms", "pictures/s"], rows)
    table(["ours over naive", "times"], [[what, f"{ratio:.2f}"] for what, ratio in found.ratios.items()])


def _soak(minutes: float, as_json: bool) -> None:
    import tempfile

    from vlm.bench.soak import soak

    with working("bench soak") as advance, tempfile.TemporaryDirectory(prefix="vlm-soak-") as folder:
        done = soak(Path(folder) / "root", 60 * minutes, say=lambda text: advance(-1, text))
    if as_json:
        emit(asdict(done))
    else:
        rows = [
            ["requests", ", ".join(f"{count} {kind}" for kind, count in sorted(done.requests.items()))],
            ["p50 / p99", f"{done.p50_ms:.1f} / {done.p99_ms:.1f} ms"],
            ["memory", f"{done.memory_mb[0]:.0f} MB, {done.memory_mb[1]:.0f} MB at the end"],
            ["lost / wrong", f"{len(done.lost)} / {len(done.wrong)}"],
            *(["", line] for line in [*done.lost[:5], *done.wrong[:5]]),
        ]
        table(["of a soak", f"{done.seconds:.0f} s, {done.kills} kill"], rows)
    if done.lost or done.wrong:
        raise typer.Exit(1)


def _chat(model: str | None, rounds: int, clients: int | None, as_json: bool) -> None:
    from vlm.bench.chat import CLIENTS, compare

    with working("bench chat") as advance:
        found = compare(model, rounds, lambda text: advance(-1, text), clients=(clients,) if clients else CLIENTS)
    if as_json:
        emit(asdict(found))
        return
    say(f"{found.model}, on {found.machine}")
    rows = [
        [row.server, row.case, *(_figure(figure) for figure in
         (row.tokens_per_second, row.cpu_ms_per_token, row.first_p50_ms, row.first_p99_ms, row.p50_ms, row.p99_ms))]
        for row in found.rows
    ]  # fmt: skip
    columns = ["tokens/s", "CPU ms a token", "first token p50, ms", "p99", "request p50, ms", "p99"]
    table(["server", "clients", *columns], rows)
    table(["tokens a second, ours over the peer's", "times"], [[row.case, _times(row)] for row in found.times])
    if found.replies:
        say(f"{found.equal} of {found.replies} replies are equal on both sides")
    rows = [
        [str(row.questions), *(f"{ms:.0f}" for ms in (row.new_ms, row.new_ms / row.questions, row.again_ms))]
        for row in found.decisions
    ]  # fmt: skip
    table(["yes/no questions a request", "new picture, ms", "a decision", "the same picture again, ms"], rows)


def _figure(value: float) -> str:
    """Three digits, or all of a whole number of more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _chat_soak(model: str | None, minutes: float, clients: int | None, as_json: bool) -> None:
    from vlm.bench.chat_soak import soak

    with working("bench chat-soak") as advance:
        done = soak(model, 60 * minutes, clients=clients or 64, say=lambda text: advance(-1, text))
    if as_json:
        emit({**asdict(done), "passed": done.passed})
    else:
        memory = ", ".join(
            f"{kind} {mb['start']:.0f} MB, {mb['most']:.0f} at most, {mb['end']:.0f} at the end"
            for kind, mb in done.memory_mb.items()
        )  # fmt: skip
        rows = [
            ["requests", ", ".join(f"{count} {kind}" for kind, count in sorted(done.requests.items()))],
            ["refused with 429", f"{done.refused}; {done.refused_when_full} of a full queue at the end"],
            ["tokens a second", f"{done.tokens_per_second:.1f} of whole replies"],
            ["first token p50 / p99", f"{done.first_p50_ms:.0f} / {done.first_p99_ms:.0f} ms"],
            ["request p50 / p99", f"{done.p50_ms:.0f} / {done.p99_ms:.0f} ms"],
            ["memory", memory],
            ["held afterwards", ", ".join(f"{name} {value:.0f}" for name, value in done.held.items())],
            ["finished after SIGTERM", str(done.finished_at_end)],
            ["ready after a kill", f"{done.restart_seconds:.1f} s"],
            ["lost / wrong", f"{len(done.lost)} / {len(done.wrong)}"],
            *(["", line] for line in [*done.lost[:5], *done.wrong[:5]]),
        ]
        say(f"{done.clients} clients, {done.seconds:.0f} s, on {done.machine}")
        table(["what", "figure"], rows)
    if not done.passed:
        raise typer.Exit(1)


def _drafts(model: str, draft: str | None, rounds: int, clients: int | None, as_json: bool) -> None:
    from vlm.bench.drafts import REPLIES, compare
    from vlm.cli.session import lazy_model

    writes = lazy_model(model, False, multi_token=True)
    guesses = None if draft is None else lazy_model(draft, False)
    with working("bench drafts") as advance:
        found = compare(
            writes(), None if guesses is None else guesses(), rounds, lambda text: advance(-1, text),
            replies=(clients,) if clients else REPLIES,
        )  # fmt: skip
    if as_json:
        emit(asdict(found))
        return
    rows = [
        [str(row.replies), row.guesses, f"{row.tokens_per_step:.2f}", f"{100 * row.acceptance:.0f} % of {row.guessed}",
         f"{row.seconds:.2f}", _times(row)]
        for row in found.rows
    ]  # fmt: skip
    by = "" if found.draft is None else f", drafts by {found.draft}"
    say(f"{found.model}{by}, on {found.machine}")
    table(["replies at a time", "guesses", "tokens a step", "right", "seconds", "times faster"], rows)
