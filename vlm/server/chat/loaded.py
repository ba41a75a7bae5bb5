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
from vlm.server.embedding.embedder import Embedder, ModelEmbedder

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.engine.settings import EngineSettings
    from vlm.facade import Model
    from vlm.heads.decisions.decider import Decider


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
    decider: Decider
    """Answers typed questions."""
    embedders: tuple[Embedder, ...] = ()
    """The model's own, where it has a space that pictures and texts share."""
    close: Callable[[], None] = lambda: None
    """End the engine."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What constraints of replies are made for."""
        return Vocabulary(self.processor.tokenizer, self.width, frozenset(self.processor.stop_tokens))


def load(
    model: Model, settings: EngineSettings, temperatures: Path | None = None, space: tuple[str, int] | None = None
) -> Loaded:
    """With an engine that runs. `temperatures` are those of `vlm calibrate`, by default of the model's folder; `space`
    is what `vlm.models.identity.space_of` says of a model that embeds. Raises `Incapable` for a model that does not
    write, `BadInput` for a broken file."""
    from vlm.engine.engine import Engine
    from vlm.heads.decisions.decider import Decider
    from vlm.heads.decisions.temperature import chosen

    language = model.model.language.cfg
    writer = model.writer
    assert writer is not None  # else it has no `model`
    decider = Decider(writer, chosen(temperatures, model.parts.folder if model.parts else None))
    engine = Engine(model.model, model.processor, settings).start()
    embedders = () if space is None else (ModelEmbedder(model, space, str(model.model.device)),)
    return Loaded(
        model.name, model.processor, engine, language.context, language.vocab_size, model.sampling(), decider,
        embedders, engine.close,
    )  # fmt: skip
