"""`vlm bench length`: what a token costs behind a long text, in time and memory, for each design of attention.

A small random model reads chunks of random tokens and decodes a few, behind a cache that stands for a text of 1024
tokens and every doubling. It is filled with random numbers: time and memory are those of a text that was read, in a
small part of the time that reading takes where its cost is quadratic. Each design runs in a process of its own, so that
the peak memory is its own: torch, weights, cache and what a chunk needs. Float32, on the threads that torch was given.
"""

from __future__ import annotations

import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm.bench.timing import peak_resident
from vlm.errors import VlmError
from vlm.files import atomic_write
from vlm.language.config import IndexerConfig, LanguageConfig, LatentConfig
from vlm.language.decoder import LanguageModel
from vlm.language.gathered_attention import HeavyBlocks
from vlm.language.kv_cache import KVCache
from vlm.language.sparse_attention import LightningIndexer

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
class Point:
    """A design at one length of text; seconds are medians."""

    design: str
    tokens: int
    read_seconds: float
    """Of one token, reading a chunk that ends here."""
    choosing_seconds: float
    """Of that, for the indexer's choice; 0 where so little lies before that it is a mask."""
    decode_seconds: float
    """Of one token, decoded behind the text."""
    expanded_seconds: float | None
    """The same in the expanded form of latent attention."""
    whole_seconds: float
    """To read the whole text, summed up from what a token costs at this length and the shorter ones."""
    cache_bytes: int
    """That the text takes in the cache."""
    peak_bytes: int | None
    """The process at its largest so far."""


def length(
    limit: int = LIMIT, rounds: int = 5, say: Say = lambda text: None, designs: Sequence[Design] = DESIGNS
) -> Iterator[Point]:
    """The points of each design, at 1024 tokens and every doubling up to `limit`.

    Raises `VlmError` where a design's process ends early (out of memory).
    """
    context = multiprocessing.get_context("spawn")
    for design in designs:
        say(design.name)
        pipe, far_end = context.Pipe(duplex=False)
        arguments = (design, limit, rounds, torch.get_num_threads(), far_end)
        process = context.Process(target=_send, args=arguments, daemon=True)
        process.start()
        far_end.close()
        try:
            for _ in _lengths(limit):
                point = pipe.recv()
                say(f"{design.name}, {point.tokens} tokens")
                yield point
        except EOFError:
            process.join()
            raise VlmError(f"{design.name}: its process ended early, with exit code {process.exitcode}") from None
        finally:
            process.terminate()
            process.join()


def _send(design: Design, limit: int, rounds: int, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    for point in measure(design, limit, rounds):
        pipe.send(point)


@torch.inference_mode()
def measure(design: Design, limit: int, rounds: int) -> Iterator[Point]:
    """The points of one design, in this process."""
    torch.manual_seed(0)
    model = design.cfg.build().eval()
    attentions: list[Any] = [layer.get_submodule("attention") for layer in model.layers]
    for attention in attentions:
        attention.blocks = design.blocks
    watch = _Watch(module for module in model.modules() if isinstance(module, LightningIndexer))
    cache = KVCache(model.cfg, 1, limit + STEPS, like=model.embedding.weight)
    whole, before = 0.0, 0.0
    for end in _lengths(limit):
        _fill(cache, end - CHUNK)
        chunk_1TD = model.embedding(torch.randint(model.cfg.vocab_size, (1, CHUNK)))
        _read(model, chunk_1TD, cache, end - CHUNK)
        watch.lap()
        seconds, choosing = [], []
        for _ in range(rounds):
            seconds.append(_read(model, chunk_1TD, cache, end - CHUNK) / CHUNK)
            choosing.append(watch.lap() / CHUNK)
        read = statistics.median(seconds)
        # From one length to the next a token's cost grows evenly.
        whole += CHUNK * read if end == CHUNK else end / 2 * (before + read) / 2
        before = read
        steps = [_decode(model, chunk_1TD, cache, end) for _ in range(rounds + 1)][1:]
        expanded = None
        if design.has_forms:
            with _expanded(attentions):
                expanded = statistics.median([_decode(model, chunk_1TD, cache, end) for _ in range(rounds + 1)][1:])
        watch.lap()
        yield Point(
            design=design.name,
            tokens=end,
            read_seconds=read,
            choosing_seconds=statistics.median(choosing),
            decode_seconds=statistics.median(steps),
            expanded_seconds=expanded,
            whole_seconds=whole,
            cache_bytes=cache.nbytes * end // cache.capacity,
            peak_bytes=peak_resident(),
        )


def _lengths(limit: int) -> list[int]:
    return [FIRST << doubled for doubled in range((limit // FIRST).bit_length())]


def _fill(cache: KVCache, tokens: int) -> None:
    for parts in cache.parts:
        for part in parts:
            part[:, :, cache.length : tokens].normal_()
    cache.length = max(cache.length, tokens)


def _read(model: LanguageModel, chunk_1TD: Tensor, cache: KVCache, past: int) -> float:
    """Seconds to read a chunk behind the first `past` tokens of the cache; what stood there is written over."""
    cache.length = past
    began = time.perf_counter()
    model.prefill(chunk_1TD, cache)
    return time.perf_counter() - began


def _decode(model: LanguageModel, chunk_1TD: Tensor, cache: KVCache, past: int) -> float:
    """Seconds to read one token behind them, the mean of a few."""
    return statistics.mean(_read(model, chunk_1TD[:, step : step + 1], cache, past + step) for step in range(STEPS))


@contextmanager
def _expanded(attentions: list[Any]) -> Iterator[None]:
    for attention in attentions:
        attention.form = "expanded"
    try:
        yield
    finally:
        for attention in attentions:
            attention.form = "auto"


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
    memory.set(title="memory (dotted: the whole process at its peak)", ylabel="MB")
    for axis in (reading, decoding, memory):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="tokens of context", yscale="log")
        axis.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1024:g}K")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    atomic_write(path, data.getvalue())
