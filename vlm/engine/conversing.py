"""What one program asks of one model: a reply as it is written, or many at a time, by an engine that is kept.

So a question about a picture that was shown before costs no second encoding, and of a conversation that goes on only
what is new is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue

from torch import Tensor

from vlm.engine.drafts.heads import bytes_of_heads
from vlm.engine.engine import Engine
from vlm.engine.job import Heard
from vlm.engine.request import Piece, Request
from vlm.engine.sampling import check
from vlm.engine.sessions.sessions import Sessions
from vlm.engine.settings import EngineSettings
from vlm.errors import BadInput
from vlm.language.attention.kv_cache import KVCache
from vlm.models.processor import Processor
from vlm.models.vision_language import VisionLanguageModel

WAIT_SECONDS = 0.1
"""Between two looks whether a reply whose turn has not come is still waited for."""
SPARE = 1.25
"""Of memory beyond what a longer conversation needs, so that the next turns have room too."""


class Replies:
    """Of one model; any thread may ask, and what is asked at once is answered before what is asked next."""

    def __init__(self, model: VisionLanguageModel, processor: Processor):
        self.model, self.processor = model, processor
        self._engine: Engine | None = None
        self._sessions: Sessions | None = None
        self._weights: list[tuple[int, ...]] = []
        """By which the engine's model is known: what it remembers holds for these alone."""
        self._lock = threading.Lock()

    def stream(self, request: Request) -> Iterator[str]:
        """The text of the reply to `request`, in pieces that no later token can change.

        Where the iterator is closed, the reply ends. Raises `BadInput` at once for a conversation that is too long, and
        for a sampling that cannot be.
        """
        cfg = self.model.language.cfg
        self.processor.budget(request.prompt, request.max_tokens, cfg.context).check()
        check(request.sampling, cfg.vocab_size)
        return self._pieces(request)

    def texts(self, requests: Sequence[Request], most: int) -> list[str]:
        """The text of the reply to each, at most `most` being written at a time. Raises what any of them raises, and
        `BadInput` where none may be written."""
        if most < 1:
            raise BadInput(f"batch: expected at least 1, got {most}")
        if not requests:
            return []
        texts = [""] * len(requests)
        failed: list[Exception] = []

        def hears(number: int) -> Heard:
            def hear(piece: Piece) -> None:
                texts[number] += piece.text
                failed.extend([] if piece.error is None else [piece.error])

            return hear

        with self._lock:
            engine = self.engine(max(len(one.prompt.ids) + one.max_tokens for one in requests), most)
            try:
                coming = iter(enumerate(requests))
                more = True
                while more and not failed:
                    for number, request in islice(coming, max(0, most - engine.replies)):
                        engine.submit(request, hears(number))
                    more = engine.step()
            except BaseException:
                self._engine = None  # it may have stopped in the middle of a step
                raise
            if failed:
                self._engine = None
                raise failed[0]
        return texts

    @contextmanager
    def sessions(self, tokens: int, model: str) -> Iterator[Sessions]:
        """Of the engine that is kept, with room for so many tokens; nothing is written meanwhile. `model` is its name
        in files."""
        with self._lock:
            engine = self.engine(tokens)
            if self._sessions is None or self._sessions.engine is not engine:
                self._sessions = Sessions(engine, model)
            yield self._sessions

    def engine(self, tokens: int, running: int = 1) -> Engine:
        """The one that is kept, with room for `running` conversations of so many tokens at a time; a new one where
        weights changed."""
        kept = self._engine
        language = self.model.language
        need = running * (
            KVCache.bytes_of(language.cfg, tokens, self.model.dtype.itemsize) + bytes_of_heads(language, tokens)
        )
        fits = kept is not None and need <= kept.settings.memory_bytes and running <= kept.settings.running
        if kept is None or not fits or self._states() != self._weights:
            usual = EngineSettings()
            settings = EngineSettings(
                memory_bytes=max(usual.memory_bytes, int(need * SPARE)), running=max(usual.running, running),
                waiting=max(usual.waiting, running),
            )  # fmt: skip
            kept = Engine(self.model, self.processor, settings)
            self._weights = self._states()  # an engine lays them out
        self._engine = kept
        return kept

    def _states(self) -> list[tuple[int, ...]]:
        return [_state(parameter) for parameter in self.model.parameters()]

    def _pieces(self, request: Request) -> Iterator[str]:
        """Written by a thread of its own: what interrupts the one that listens leaves no step half done."""
        heard: SimpleQueue[Piece] = SimpleQueue()
        gone = threading.Event()
        thread = threading.Thread(target=self._write, args=(request, heard, gone), name="reply")
        thread.start()
        try:
            while True:
                piece = heard.get()
                if piece.error is not None:
                    raise piece.error
                if piece.text:
                    yield piece.text
                if piece.finish is not None:
                    return
        finally:
            gone.set()
            if thread is not threading.current_thread():  # where it collects what nobody holds any more
                thread.join()

    def _write(self, request: Request, heard: SimpleQueue[Piece], gone: threading.Event) -> None:
        while not self._lock.acquire(timeout=WAIT_SECONDS):
            if gone.is_set():
                return
        try:
            engine = self.engine(len(request.prompt.ids) + request.max_tokens)
            ticket = engine.submit(request, heard.put)
            more = True
            while more:
                if gone.is_set():
                    ticket.cancel()
                more = engine.step()
        except Exception as error:
            self._engine = None  # it may have stopped in the middle of a step
            heard.put(Piece(0, error=error))
        finally:
            self._lock.release()


def _state(parameter: Tensor) -> tuple[int, ...]:
    """What changes when a parameter does: where it lies, its size, and how often it was written to."""
    version = 0 if parameter.is_inference() else parameter._version
    return id(parameter), parameter.data_ptr(), parameter.nbytes, version
