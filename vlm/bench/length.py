"""`vlm bench length`: what a token costs behind a long text, in time and memory, for each design of attention.

A small random model reads chunks of random tokens and decodes a few, behind a cache that stands for a text of 1024
tokens and every doubling. It is filled with random numbers: time and memory are those of a text that was read, in a
small part of the time that reading takes where its cost is quadratic. Each design has a process of its own, so that the
peak memory is its own: torch, weights, cache and what a chunk needs. Float32, on the threads that torch was given.
"""

from __future__ import annotations

import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm.bench.timing import peak_resident
from vlm.errors import VlmError
from vlm.files import atomic_write
from vlm.language.attention.gathered import HeavyBlocks
from vlm.language.attention.kv_cache import KVCache
from vlm.language.attention.sparse import LightningIndexer
from vlm.language.config import LanguageConfig
from vlm.language.config.attention import IndexerConfig, LatentConfig
from vlm.language.decoder import LanguageModel

FIRST, LIMIT, CHUNK, STEPS = 2**10, 2**17, 2**10, 4
CHOSEN = 512
"""Tokens that a sparse design looks at."""
GROUPED = LanguageConfig(
    vocab_size=512, width=256, layers=2, heads=4, kv_heads=2, head_width=64, ffn_width=512, max_positions=2**20
)
LATENT = LatentConfig(kind="mla", kv_rank=128, rope_width=32, value_width=64, q_rank=128)
INDEXED = LATENT.model_copy(update={"indexer": IndexerConfig(heads=2, head_width=32, top_k=CHOSEN)})
AS_LATENT = {"kv_heads": GROUPED.heads, "head_width": 96}

Say = Callable[[str], None]
Choice = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Design:
    """A way to attend."""

    name: str
    cfg: LanguageConfig
    blocks: HeavyBlocks | None = None

    @property
    def has_forms(self) -> bool:
        """Latent attention to every token: absorbed or expanded."""
        attention = self.cfg.attention
        return isinstance(attention, LatentConfig) and attention.indexer is None and self.blocks is None


DESIGNS = (
    Design("GQA", GROUPED),
    Design("GQA, blocks", GROUPED, HeavyBlocks(64, CHOSEN // 64)),
    Design("MLA", GROUPED.model_copy(update=AS_LATENT | {"attention": LATENT})),
    Design("MLA, indexer", GROUPED.model_copy(update=AS_LATENT | {"attention": INDEXED})),
)


@dataclass(frozen=True)
class Turn:
    """One measurement of a design at one length; seconds of one token."""

    read_seconds: float
    """Reading a chunk that ends here."""
    choosing_seconds: float
    """Of that, for the indexer's choice; 0 where so little lies before that it is a mask."""
    decode_seconds: float
    """Decoding behind the text."""
    expanded_seconds: float | None
    """The same in the expanded form of latent attention."""
    cache_bytes: int
    """That the text takes in the cache."""
    peak_bytes: int | None
    """The process at its largest so far."""


@dataclass(frozen=True)
class Point(Turn):
    """A design at one length: the least seconds of all turns, since what else a machine does only adds to them."""

    design: str
    tokens: int
    whole_seconds: float
    """To read the whole text, summed up from what a token costs at this length and the shorter ones."""


def length(
    limit: int = LIMIT, rounds: int = 5, say: Say = lambda text: None, designs: Sequence[Design] = DESIGNS
) -> Iterator[Point]:
    """The points of all designs at 1024 tokens and every doubling up to `limit`; at each length they take turns.

    Raises `VlmError` where a design's process ends early (out of memory).
    """
    context = multiprocessing.get_context("spawn")
    running, pipes = [], []
    try:
        for design in designs:
            pipe, far_end = context.Pipe()
            arguments = (design, limit, torch.get_num_threads(), far_end)
            running.append(context.Process(target=_serve, args=arguments, daemon=True))
            running[-1].start()
            far_end.close()
            pipes.append(pipe)
        before: dict[str, Point] = {}
        for tokens in _lengths(limit):
            turns: list[list[Turn]] = [[] for _ in designs]
            for number in range(rounds + 1):
                for own, design, pipe, process in zip(turns, designs, pipes, running, strict=True):
                    say(f"{tokens} tokens, round {number}, {design.name}")
                    own.append(_ask(design, tokens, pipe, process))
            for own, design in zip(turns, designs, strict=True):  # the first round does not count
                before[design.name] = _point(design.name, tokens, own[1:], before.get(design.name))
                yield before[design.name]
    finally:
        for process in running:
            process.terminate()
            process.join()


def _ask(design: Design, tokens: int, pipe: Connection, process: BaseProcess) -> Turn:
    try:
        pipe.send(tokens)
        turn: Turn = pipe.recv()
    except (EOFError, OSError):
        process.join()
        raise VlmError(f"{design.name}: its process ended early, with exit code {process.exitcode}") from None
    return turn


def _point(design: str, tokens: int, turns: list[Turn], shorter: Point | None) -> Point:
    best = min(turns, key=lambda turn: turn.read_seconds)
    expanded = [turn.expanded_seconds for turn in turns if turn.expanded_seconds is not None]
    # From one length to the next a token's cost grows evenly.
    whole = tokens * best.read_seconds
    if shorter is not None:
        whole = shorter.whole_seconds + tokens / 2 * (shorter.read_seconds + best.read_seconds) / 2
    least = {
        "decode_seconds": min(turn.decode_seconds for turn in turns),
        "expanded_seconds": min(expanded) if expanded else None,
        "peak_bytes": turns[-1].peak_bytes,
    }
    return Point(design=design, tokens=tokens, whole_seconds=whole, **{**asdict(best), **least})


def _serve(design: Design, limit: int, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    reader = Reader(design, limit)
    with suppress(EOFError, OSError):  # until the process that asks is gone
        while True:
            pipe.send(reader.turn(pipe.recv()))


class Reader:
    """A random model of a design and a cache of `limit` tokens."""

    def __init__(self, design: Design, limit: int):
        torch.manual_seed(0)
        self.design, self.model = design, LanguageModel(design.cfg).eval()
        self.attentions: list[Any] = [layer.get_submodule("attention") for layer in self.model.layers]
        for attention in self.attentions:
            attention.blocks = design.blocks
        self.watch = _Watch(module for module in self.model.modules() if isinstance(module, LightningIndexer))
        self.cache = KVCache(self.model.cfg, 1, limit + STEPS, like=self.model.embedding.weight)

    @torch.inference_mode()
    def turn(self, tokens: int) -> Turn:
        """The figures of one more turn at this length."""
        self._fill(tokens - CHUNK)
        chunk_1TD = self.model.embedding(torch.randint(self.model.cfg.vocab_size, (1, CHUNK)))
        self.watch.lap()
        read, choosing = self._read(chunk_1TD, tokens - CHUNK), self.watch.lap()
        decode, expanded = self._decode(chunk_1TD, tokens), None
        if self.design.has_forms:
            self._form("expanded")
            expanded = self._decode(chunk_1TD, tokens)
            self._form("auto")
        return Turn(
            read_seconds=read / CHUNK,
            choosing_seconds=choosing / CHUNK,
            decode_seconds=decode,
            expanded_seconds=expanded,
            cache_bytes=self.cache.nbytes * tokens // self.cache.capacity,
            peak_bytes=peak_resident(),
        )

    def _form(self, form: str) -> None:
        for attention in self.attentions:
            attention.form = form

    def _fill(self, tokens: int) -> None:
        for parts in self.cache.parts:
            for part in parts:
                part[:, :, self.cache.length : tokens].normal_()
        self.cache.length = max(self.cache.length, tokens)

    def _read(self, x_1TD: Tensor, past: int) -> float:
        """Seconds to read tokens behind the first `past` of the cache; what stood there is written over."""
        self.cache.length = past
        began = time.perf_counter()
        self.model.prefill(x_1TD, self.cache)
        return time.perf_counter() - began

    def _decode(self, x_1TD: Tensor, past: int) -> float:
        """Seconds to read one token behind them, the mean of a few."""
        return statistics.mean(self._read(x_1TD[:, step : step + 1], past + step) for step in range(STEPS))


def _lengths(limit: int) -> list[int]:
    return [FIRST << doubled for doubled in range((limit // FIRST).bit_length())]


class _Watch:
    """Adds up the seconds in which indexers choose."""

    def __init__(self, indexers: Iterable[LightningIndexer]):
        self.seconds = 0.0
        for indexer in indexers:
            indexer.choose = self._timed(indexer.choose)  # type: ignore[method-assign]

    def _timed(self, choose: Callable[..., Choice]) -> Callable[..., Choice]:
        def timed(*inputs: Any) -> Choice:
            began = time.perf_counter()
            choice = choose(*inputs)
            self.seconds += time.perf_counter() - began
            return choice

        return timed

    def lap(self) -> float:
        """The seconds since the last lap."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def draw(points: Sequence[Point], path: Path) -> None:
    """A PNG: tokens against the time of one read and one decoded token, and against memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    reading, decoding, memory = figure.subplots(1, 3)
    for number, name in enumerate(dict.fromkeys(point.design for point in points)):
        own, color = [point for point in points if point.design == name], f"C{number}"
        tokens = [point.tokens for point in own]
        reading.plot(tokens, [1e6 * p.read_seconds for p in own], "o-", ms=4, color=color, label=name)
        decoding.plot(tokens, [1e3 * p.decode_seconds for p in own], "o-", ms=4, color=color, label=name)
        memory.plot(tokens, [p.cache_bytes / 2**20 for p in own], "o-", ms=4, color=color, label=f"{name}: cache")
        if any(p.choosing_seconds for p in own):
            chosen = [(p.tokens, 1e6 * p.choosing_seconds) for p in own if p.choosing_seconds]
            reading.plot(*zip(*chosen, strict=True), ":", color=color, label="of that, the indexer")
        if expanded := [1e3 * p.expanded_seconds for p in own if p.expanded_seconds]:
            decoding.plot(tokens, expanded, ":", color=color, label=f"{name}, expanded")
        if peaks := [p.peak_bytes / 2**20 for p in own if p.peak_bytes]:
            memory.plot(tokens, peaks, ":", color=color)
    reading.set(title="reading a prompt", ylabel="microseconds a token, at that length")
    decoding.set(title="decoding", ylabel="milliseconds a token")
    memory.set(title="memory; dotted: the process at its peak", ylabel="MB")
    for axis in (reading, decoding, memory):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="tokens of context", yscale="log")
        axis.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1024:g}K")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    atomic_write(path, data.getvalue())
