"""A request as the engine works with it: checked, cut into chunks, its pictures known by their content."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from vlm.engine.chunks import Shown, chunks, shown_in
from vlm.engine.encoder_cache import EncoderCache
from vlm.engine.job import Heard, Job, Reply
from vlm.engine.prefix_cache import Stretch, stretches
from vlm.engine.request import Request
from vlm.engine.sampling import check
from vlm.engine.settings import EngineSettings
from vlm.errors import BadInput
from vlm.models.processor import Processor, Prompt
from vlm.models.vision_language import VisionLanguageModel


class Cut(NamedTuple):
    """A prompt as the engine's caches know it."""

    shown: list[Shown]
    keys: list[bytes]
    """Of its pictures and clips."""
    parts: list[range]
    stretches: list[Stretch]


class Intake:
    """Of one model; any thread may ask."""

    def __init__(
        self, model: VisionLanguageModel, processor: Processor, settings: EngineSettings, pictures: EncoderCache,
        identity: bytes, bytes_of: Callable[[int], int],
    ):  # fmt: skip
        """`bytes_of` says what so many tokens of a reply take."""
        self._processor, self._cfg, self._bytes_of = processor, model.language.cfg, bytes_of
        self._memory, self._chunk = settings.memory_bytes, settings.chunk
        self._pictures, self._identity = pictures, identity

    def job(self, request: Request, heard: Heard) -> Job:
        """Raises `BadInput` for what can never be answered."""
        prompt = request.prompt
        self._processor.budget(prompt, request.max_tokens, self._cfg.context).check()
        check(request.sampling, self._cfg.vocab_size)
        if request.n < 1 or request.max_tokens < 1:
            raise BadInput(f"expected at least one reply of one token, got n {request.n}, tokens {request.max_tokens}")
        need = self._bytes_of(len(prompt.ids) + request.max_tokens)
        if need > self._memory:
            raise BadInput(f"expected a request of at most {self._memory} bytes of keys and values, got one of {need}")
        cut = self.cut(prompt, request.client)
        until = None if request.seconds is None else time.monotonic() + request.seconds
        job = Job(request, heard, cut.shown, cut.keys, cut.stretches, cut.parts, until)
        seed = secrets.randbits(63) if request.sampling.seed is None else request.sampling.seed
        job.replies = [Reply(job, choice, seed, self._processor) for choice in range(request.n)]
        return job

    def cut(self, prompt: Prompt, client: str) -> Cut:
        """Raises `BadInput` where a prompt's slots and visual tokens differ."""
        shown = shown_in(prompt, self._processor)
        pictures = zip(prompt.media, prompt.layouts, strict=True)
        keys = [self._pictures.key(item, layout, client) for item, layout in pictures]
        parts = chunks(len(prompt.ids), shown, self._chunk)
        first = [(item.places[0], keys[item.number]) for item in shown if item.places]
        salt = client.encode()
        root = b"%d %s %s" % (len(salt), salt, self._identity)
        return Cut(shown, keys, parts, stretches(prompt.ids, parts, first, root))
