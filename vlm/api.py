"""The facade: a model and its three heads under one name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlm.checkpoints.assemble import Assembled, assemble
from vlm.checkpoints.card import load_card
from vlm.checkpoints.trained import weights_hash
from vlm.heads.captioning import Captioner
from vlm.heads.media import Media, MediaSource, open_media
from vlm.heads.moments import WATCHED, Moment, moments_of
from vlm.heads.retrieval import Embedder, Vectors
from vlm.heads.vqa import Answerer
from vlm.video.config import VideoConfig
from vlm.video.sampling.base import Sampler


def load(name_or_path: str, *, offline: bool = False, report: Callable[[str], None] | None = None) -> Model:
    """The model of a card: a name in `configs/models/`, or the path of a card of your own.

    Its parts are fetched once and kept; `offline=True` never touches the network. `report` is told of progress in
    words. Raises `BadInput` for an unknown name (with the nearest one), `VlmError` where no source of a part answers.
    """
    return Model(assemble(load_card(name_or_path), offline=offline, report=report))


class Model:
    """What a user asks of a model. An input is a path, a URL, a `PIL.Image`, an array, a video's path, or a `Clip`.

    `sampling` says which frames of a video are looked at; by default what the model's card says (`video.sampling`).
    Raises `BadInput` in one line for an input that cannot be used.
    """

    video: VideoConfig = VideoConfig()
    frame_tokens: int | None = None
    """Visual tokens of a frame, where it is always as many."""

    def __init__(self, assembled: Assembled):
        self.card = assembled.card
        self.video, self.frame_tokens = assembled.card.video, assembled.card.model.visual_tokens
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

    def caption(
        self, inputs: Sequence[MediaSource], *, max_tokens: int = 40, batch: int = 16, sampling: Sampler | None = None
    ) -> list[str]:
        """One sentence an input; `batch` sentences are written at once and do not depend on it."""
        return self.captioner.caption(self._open(inputs, sampling), max_tokens=max_tokens, batch=batch)

    def answer(
        self,
        inputs: Sequence[MediaSource],
        questions: Sequence[str],
        *,
        max_tokens: int = 32,
        batch: int = 16,
        sampling: Sampler | None = None,
    ) -> list[str]:
        """One answer a pair of input and question; `batch` answers are written at once and do not depend on it."""
        return self.answerer.answer(self._open(inputs, sampling), questions, max_tokens=max_tokens, batch=batch)

    def embed_images(self, inputs: Sequence[MediaSource], *, sampling: Sampler | None = None) -> Vectors:
        """float32 `[N, S]`, unit length, in the space that texts and clips share."""
        return self.embedder.embed_media(self._open(inputs, sampling))

    embed_videos = embed_images

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 `[N, S]`, unit length."""
        return self.embedder.embed_texts(texts)

    def moments(
        self, video: MediaSource, texts: Sequence[str], *, sampling: Sampler | None = None
    ) -> list[list[Moment]]:
        """For each text the stretches of the video's time that are nearest to it, best first; two frames a second.

        Raises `BadInput` for a picture, which has no time.
        """
        clip = open_media(video, sampling or WATCHED)
        return moments_of(clip, texts, self.embed_images, self.embed_texts)

    def sampling(self, wanted: Sampler | None = None) -> Sampler:
        """What picks a video's frames: `wanted`, or what the card says, with a frame's tokens known to it."""
        chosen = wanted or self.video.sampling
        return chosen if self.frame_tokens is None else chosen.fitted(self.frame_tokens)

    def _open(self, inputs: Sequence[MediaSource], sampling: Sampler | None) -> list[Media]:
        return [open_media(item, self.sampling(sampling)) for item in inputs]
