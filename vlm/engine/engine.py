"""The engine: requests of many callers, answered together (continuous batching, Orca, OSDI 2022).

A step gives every reply that is being written one token, and then reads some of the prompts that wait, a chunk at a
time. A reply is the same, to the bit, alone and in any company, with a prompt that was read before or anew, and after
its memory was taken away: decoding steps have a few shapes that agree (`rows`), prompts are cut by themselves alone
(`chunks`), and each reply attends alone to what its own cache holds.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress

import torch

from vlm.engine.decoding import Decoding, Fed
from vlm.engine.drafts.drafting import drafting
from vlm.engine.encoder_cache import EncoderCache
from vlm.engine.intake import Intake
from vlm.engine.job import Heard, Job, Reply, Ticket
from vlm.engine.prefix_cache import PrefixCache
from vlm.engine.reading import Chunk, Reading
from vlm.engine.request import Full, Held, Piece, Request
from vlm.engine.rows import arranged
from vlm.engine.settings import EngineSettings
from vlm.engine.turns import Turns
from vlm.language.attention.kv_cache import KVCache
from vlm.models.assembled import Assembled
from vlm.models.processor import Processor
from vlm.models.vision_language import VisionLanguageModel

IDLE_SECONDS = 0.5


class Engine:
    """Of one model. `submit` and `Ticket.cancel` may be called from any thread; the rest belongs to one, which `start`
    makes, or which calls `step`."""

    def __init__(
        self, model: VisionLanguageModel, processor: Processor, settings: EngineSettings | None = None,
        draft: Assembled | None = None,
    ):  # fmt: skip
        """`draft` is a small model that guesses for this one; of it the language model is used. Raises `BadInput` where
        its tokens are others."""
        self.model, self.processor, self.settings = model, processor, settings or EngineSettings()
        self.cfg = model.language.cfg
        rows = arranged(model.language)
        rows = rows if self.settings.sizes is None else rows._replace(steps=self.settings.sizes)
        self.drafting = drafting(model, processor, self.settings, rows.steps, draft)
        self.decoding = Decoding(model, processor, rows.steps, self.drafting)
        identity = secrets.token_bytes(32)  # what is remembered is this engine's, and goes with it
        self.pictures = EncoderCache(model, processor, identity, self.settings.pictures_bytes)
        self.prompts = PrefixCache()
        self.preempted = 0
        """Replies whose memory was taken away, so far."""
        self.reading = Reading(model, self.pictures, rows)
        self.intake = Intake(model, processor, self.settings, self.pictures, identity, self._bytes)
        self._turns = Turns()
        self._replies: list[Reply] = []
        """All that are not finished."""
        self._came = 0
        self._changed = threading.Condition()
        self._new: list[Job] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    # What others ask

    def submit(self, request: Request, heard: Heard) -> Ticket:
        """Take a request; `heard` is called with its pieces, in the engine's thread, until each choice has finished.

        Raises `BadInput` for what can never be answered, and `Full` where too many wait.
        """
        job = self.intake.job(request, heard)
        with self._changed:
            waiting = self.waiting
            if self._closed or waiting + request.n > self.settings.waiting:
                raise Full(waiting, 1.0 + waiting / self.settings.running)
            job.number = self._came = self._came + 1
            self._new.append(job)
            self._changed.notify()
        return Ticket(job, self._wake)

    def start(self) -> Engine:
        """Answer in a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Finish what was taken, and take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Replies that wait to be begun."""
        return len(self._new) + sum(reply.cache is None and reply.finish is None for reply in self._replies)

    @property
    def replies(self) -> int:
        """Those that are not finished."""
        return len(self._new) + len(self._replies)

    @property
    def nbytes(self) -> int:
        """Of keys and values, those kept of earlier prompts among them."""
        return self._held() + self.prompts.nbytes

    def held(self) -> Held:
        """What there is now; from any thread."""
        tokens = [reply.held for reply in self._replies if reply.cache is not None]
        held = sum(map(self._bytes, tokens))
        drafted = dict(self.drafting.counts)
        return Held(len(tokens), self.waiting, held, self.prompts.nbytes, self.pictures.nbytes, drafted)

    @torch.inference_mode()
    def step(self) -> bool:
        """A token of every reply, and some of the prompts that wait; false where there is nothing to do."""
        self._take_in()
        for reply in self._replies:
            if reply.job.cancelled or reply.job.late():
                reply.end("cancelled" if reply.job.cancelled else "deadline")
        self._forget()
        if not self._replies:
            return False
        try:
            fed = self._written()
        except Exception as error:  # no memory, say: whose fault it was is not known
            fed = []
            for reply in [reply for reply in self._replies if reply.writing]:
                self._failed(reply.job, error)
        fed += self._prompts_read()
        for reply, failure in self.decoding.choose(fed):
            self._failed(reply.job, failure)
        for one in fed:
            one.reply.coming = 0
        self._forget()
        return True

    # One step

    def _written(self) -> list[Fed]:
        """Feed each reply that is being written its last token."""
        for reply in self._replies:
            tokens = min(1 + self.drafting.most, reply.job.request.max_tokens - reply.fed)
            if reply.writing and self._room(tokens, reply):
                reply.coming = tokens
        fed = self.decoding.feed([reply for reply in self._replies if reply.writing])
        for one in fed:
            self._turns.gave(one.reply.job.request.client, 1)
        return fed

    def _prompts_read(self) -> list[Fed]:
        """Read chunks, as many as a step may: the replies whose prompts are whole now."""
        fed: list[Fed] = []
        together: list[Chunk] = []
        tokens, visual = self.settings.tokens, self.settings.visual
        while tokens > 0:
            if (reply := self._next(together)) is None:
                if not together:
                    break
                fed += self._read(together)
                continue
            try:
                if reply.cache is None:
                    self._begin(reply)
                if reply.cache is None:  # no room for what is known of it
                    break
                part = reply.job.parts[reply.read]
                if visual <= 0 and self.reading.unseen(reply, part):
                    break
                if not self._room(len(part), reply):
                    break
                before = self.pictures.encoded
                chunk = self.reading.chunk(reply, part)
            except Exception as error:  # a picture that cannot be read, say: this request's own
                self._failed(reply.job, error)
                continue
            visual -= self.pictures.encoded - before
            tokens -= len(part)
            reply.coming = len(part)
            self._turns.gave(reply.job.request.client, len(part))
            if together and not self.reading.fits(together, chunk):
                fed += self._read(together)
            together.append(chunk)
        return fed + self._read(together)

    def _read(self, together: list[Chunk]) -> list[Fed]:
        """Those that are whole now; none is left in the list."""
        chunks, fed = [one for one in together if one.reply.cache is not None and one.reply.finish is None], []
        for one in together:
            one.reply.coming = 0
        together.clear()
        try:
            states = self.reading.read(chunks) if chunks else []
        except Exception as error:  # no memory, say: whose fault it was is not known
            for one in chunks:
                self._failed(one.reply.job, error)
            return []
        for one, states_TD in zip(chunks, states, strict=True):
            reply, job = one.reply, one.reply.job
            if reply.cache is None:  # it gave way to what is kept of another
                continue
            self.drafting.saw(reply, one.part.start, states_TD)
            if self._keeps(job):
                self.prompts.keep(job.stretches[reply.read], reply.cache.taken(one.part.start))
                self._room(0, reply)
            reply.read += 1
            if reply.read == len(job.parts):
                self.prompts.touch(job.stretches)
                fed.append(Fed(reply, [states_TD[-1]]))
        return fed

    # Whose turn it is, and what it may take

    def _next(self, together: Sequence[Chunk]) -> Reply | None:
        """Whose prompt is read next, beside those chunks."""
        found = self._turns.next(self._replies, self.settings.running, [one.reply for one in together])
        return found if found is None or found.cache is not None or self._admits(found) else None

    def _begin(self, reply: Reply) -> None:
        """A cache, with what is known of the prompt; of all but its last chunk, behind which the reply begins."""
        request = reply.job.request
        tokens = len(request.prompt.ids) + request.max_tokens
        reply.cache = KVCache(self.cfg, 1, tokens, like=self.model.language.embedding.weight)
        found = self.prompts.found(reply.job.stretches[:-1]) if self._keeps(reply.job) else []
        if found and self._room(found[-1].end, reply):
            reply.cache.restore(found)
            reply.read = len(found)
            if not reply.tokens and reply.choice == 0:
                reply.job.cached = found[-1].end

    def _admits(self, reply: Reply) -> bool:
        """Whether its whole prompt has room beside those that do not give way to it: half of one is read in vain."""
        order = self._turns.order
        before = sum(self._bytes(other.held) for other in self._replies if order(other) < order(reply))
        return before + self._bytes(len(reply.job.request.prompt.ids) + 1) <= self.settings.memory_bytes

    def _room(self, tokens: int, reply: Reply) -> bool:
        """Make room for so many more: earlier prompts go, then the newest replies give way; false where it is this
        one."""
        need = self._bytes(reply.held + tokens) - self._bytes(reply.held)
        while (held := self._held()) + need > self.settings.memory_bytes:
            last = self._turns.last(other for other in self._replies if other.held or other is reply)
            self.preempted += last.held > 0
            last.let_go()
            if last is reply:
                return False
        self.prompts.shrink(min(self.settings.prompts_bytes, self.settings.memory_bytes - held - need))
        return True

    def _held(self) -> int:
        return sum(self._bytes(reply.held) for reply in self._replies)

    # Coming and going

    def _take_in(self) -> None:
        with self._changed:
            new, self._new = self._new, []
        for job in new:
            self._turns.came(job.request.client, (reply.job.request.client for reply in self._replies))
            self._replies += job.replies

    def _failed(self, job: Job, error: Exception) -> None:
        for reply in job.replies:
            reply.finish = reply.finish or "cancelled"
            reply.let_go()
        with suppress(Exception):  # it may be what failed
            job.heard(Piece(0, error=error))

    def _forget(self) -> None:
        with self._changed:
            self._replies = [reply for reply in self._replies if reply.finish is None]

    def _keeps(self, job: Job) -> bool:
        return self.settings.keep_prompts and self.cfg.rope.fixed(len(job.request.prompt.ids))

    def _bytes(self, tokens: int) -> int:
        return KVCache.bytes_of(self.cfg, tokens, self.model.dtype.itemsize) + self.drafting.bytes_of(tokens)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            if self.step():
                continue
            with self._changed:
                if self._new:
                    continue
                if self._closed:
                    return
                self._changed.wait(IDLE_SECONDS)
