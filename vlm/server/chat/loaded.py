"""The model behind a chat server: what makes its prompts, and the engine that answers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from vlm.engine.constraint import Vocabulary
from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.media.video.sampling.base import Sampler
from vlm.models.processor import Layout, Processor
from vlm.server.chat.replies import Answers
from vlm.server.embedding.embedder import Embedder, ModelEmbedder

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.engine.encoder_cache import EncoderCache
    from vlm.engine.sessions.sessions import Sessions
    from vlm.engine.settings import EngineSettings
    from vlm.facade import Model
    from vlm.heads.decisions.decider import Decider
    from vlm.models.assembled import Assembled


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
    pictures: EncoderCache | None = None
    """The engine's: what it has seen is not encoded again for a decision."""
    embedders: tuple[Embedder, ...] = ()
    """The model's own, where it has a space that pictures and texts share."""
    sessions: Sessions | None = None
    """Conversations that are kept, of the engine."""
    close: Callable[[], None] = lambda: None
    """End the engine."""

    def see(self, item: Media, layout: Layout, client: str) -> Sequence[Tensor]:
        """The visual tokens `[M, D]` of what a client shows."""
        if self.pictures is None:
            return self.decider.writer.visual(item, layout)
        return [self.pictures.visual(self.pictures.key(item, layout, client), item, layout)]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What constraints of replies are made for."""
        return Vocabulary(self.processor.tokenizer, self.width, frozenset(self.processor.stop_tokens))


def load(
    model: Model, settings: EngineSettings, temperatures: Path | None = None, space: tuple[str, int] | None = None,
    draft: Model | None = None,
) -> Loaded:  # fmt: skip
    """With an engine that runs. `temperatures` are those of `vlm calibrate`, by default of the model's folder; `space`
    is what `vlm.models.identity.space_of` says of a model that embeds; `draft` guesses for it. Raises `Incapable` for a
    model that does not write, `BadInput` for a broken file and a draft with other tokens."""
    from vlm.engine.engine import Engine
    from vlm.engine.sessions.sessions import Sessions
    from vlm.heads.decisions.decider import Decider
    from vlm.heads.decisions.temperature import chosen

    language = model.model.language.cfg
    writer = model.writer
    assert writer is not None  # else it has no `model`
    decider = Decider(writer, chosen(temperatures, model.parts.folder if model.parts else None))
    engine = Engine(model.model, model.processor, settings, None if draft is None else _guessing(draft)).start()
    embedders = () if space is None else (ModelEmbedder(model, space, str(model.model.device)),)
    return Loaded(
        model.name, model.processor, engine, language.context, language.vocab_size, model.sampling(), decider,
        engine.pictures, embedders, Sessions(engine, model.name), engine.close,
    )  # fmt: skip


def _guessing(draft: Model) -> Assembled:
    if draft.parts is None:
        raise BadInput(f"draft {draft.name}: expected a model that writes, got {draft.about}")
    return draft.parts
