"""The model behind a chat server: what makes its prompts, and the engine that answers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vlm.engine.constraint import Vocabulary
from vlm.media.video.sampling.base import Sampler
from vlm.models.processor import Processor
from vlm.server.chat.replies import Answers

if TYPE_CHECKING:
    from vlm.engine.settings import EngineSettings
    from vlm.facade import Model


@dataclass(frozen=True)
class Loaded:
    name: str
    processor: Processor
    engine: Answers
    context: int
    """Tokens that the language model reads."""
    width: int
    """Of its logits: tokens that there are."""
    sampling: Sampler
    """Of the frames of clips, where a request says nothing of them."""
    close: Callable[[], None] = lambda: None
    """End the engine."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What constraints of replies are made for."""
        return Vocabulary(self.processor.tokenizer, self.width, frozenset(self.processor.stop_tokens))


def load(model: Model, settings: EngineSettings) -> Loaded:
    """With an engine that runs. Raises `Incapable` for a model that does not write."""
    from vlm.engine.engine import Engine

    language = model.model.language.cfg
    engine = Engine(model.model, model.processor, settings).start()
    return Loaded(
        model.name, model.processor, engine, language.context, language.vocab_size, model.sampling(), engine.close
    )
