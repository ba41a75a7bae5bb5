"""The facade: a model and its three heads under one name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlm.checkpoints.assemble import Assembled, assemble
from vlm.checkpoints.card import load_card
from vlm.checkpoints.trained import weights_hash
from vlm.heads.captioning import Captioner
from vlm.heads.experts import expert_use
from vlm.heads.media import MediaSource, open_media
from vlm.heads.retrieval import Embedder, Vectors
from vlm.heads.vqa import Answerer
from vlm.language.statistics import RoutingStatistics


def load(name_or_path: str, *, offline: bool = False, report: Callable[[str], None] | None = None) -> Model:
    """The model of a card: a name in `configs/models/`, or the path of a card of your own.

    Its parts are fetched once and kept; `offline=True` never touches the network. `report` is told of progress in
    words. Raises `BadInput` for an unknown name (with the nearest one), `VlmError` where no source of a part answers.
    """
    return Model(assemble(load_card(name_or_path), offline=offline, report=report))


class Model:
    """What a user asks of a model. An input is a path, a URL, a `PIL.Image`, an array, a video's path, or a `Clip`.

    Raises `BadInput` in one line for an input that cannot be used.
    """

    def __init__(self, assembled: Assembled):
        self.card = assembled.card
        self.parts = assembled
        self.captioner = Captioner(assembled)
        self.answerer = Answerer(assembled)
        self.embedder = Embedder(assembled)

    @property
    def name(self) -> str:
        return self.card.name

    def weights_hash(self) -> str:
        """sha256 over all weights, so that a result can say what gave it."""
        return weights_hash([self.parts.model, self.parts.text_encoder])

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by before a softmax over them: the learned inverse temperature."""
        return float(self.parts.model.alignment.scale)

    def caption(self, inputs: Sequence[MediaSource], *, max_tokens: int = 40, batch: int = 16) -> list[str]:
        """One sentence an input; `batch` sentences are written at once and do not depend on it."""
        return self.captioner.caption([open_media(item) for item in inputs], max_tokens=max_tokens, batch=batch)

    def answer(
        self, inputs: Sequence[MediaSource], questions: Sequence[str], *, max_tokens: int = 32, batch: int = 16
    ) -> list[str]:
        """One answer a pair of input and question; `batch` answers are written at once and do not depend on it."""
        media = [open_media(item) for item in inputs]
        return self.answerer.answer(media, questions, max_tokens=max_tokens, batch=batch)

    def expert_use(self, inputs: Sequence[MediaSource]) -> list[RoutingStatistics]:
        """Which experts each input and its caption call, by kind of token (`image`, `text`)."""
        media = [open_media(item) for item in inputs]
        return expert_use(self.parts, media, self.captioner.caption(media))

    def embed_images(self, inputs: Sequence[MediaSource]) -> Vectors:
        """float32 `[N, S]`, unit length, in the space that texts and clips share."""
        return self.embedder.embed_media([open_media(item) for item in inputs])

    embed_videos = embed_images

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 `[N, S]`, unit length."""
        return self.embedder.embed_texts(texts)
