"""A loaded model as a user knows it: what it writes, embeds and matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from vlm.conversation.budget import TokenBudget
from vlm.heads.captioning import Captioner
from vlm.heads.chat import ChatHead
from vlm.heads.classification import TEMPLATES, Chance, classified
from vlm.heads.experts import expert_use
from vlm.heads.matching import Matcher
from vlm.heads.moments import WATCHED, Moment, moments_of
from vlm.heads.retrieval import Embedder, PairEmbedder
from vlm.heads.vqa import Answerer
from vlm.language.mixture.statistics import RoutingStatistics
from vlm.media.open import Media, MediaSource, open_media
from vlm.media.video.config import VideoConfig
from vlm.media.video.sampling.base import Sampler
from vlm.models.assemble import Assembled
from vlm.models.trained import weights_hash
from vlm.vectors import Vectors, composed, shortened


class Model:
    """What a user asks of a model. An input is a path, a URL, a `PIL.Image`, an array, a video's path, or a `Clip`.

    `sampling` says which frames of a video are looked at; by default what the model's card says (`video.sampling`).
    Raises `BadInput` in one line for an input that cannot be used.
    """

    embedder: Embedder | PairEmbedder
    captioner: Captioner | ChatHead
    answerer: Answerer | ChatHead
    video: VideoConfig = VideoConfig()
    settings: Mapping[str, str] = MappingProxyType({})
    """What else answers depend on beside the weights, where it is not as usual: `merge`, `tiling`."""
    frame_tokens: int | None = None
    """Visual tokens of a frame, where it is always as many."""

    def __init__(self, assembled: Assembled):
        self.card = assembled.card
        self.video, self.frame_tokens = assembled.card.video, assembled.card.model.visual_tokens
        if not self.card.model.merge.idle:
            self.settings = {"merge": self.card.model.merge.model_dump_json()}
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

    def budget(
        self,
        inputs: Sequence[MediaSource],
        questions: Sequence[str] | None = None,
        *,
        max_tokens: int | None = None,
        sampling: Sampler | None = None,
    ) -> list[TokenBudget]:
        """What each answer costs, or each caption without `questions`, in tokens; no weights are used.

        `max_tokens` is what is kept free for the reply, by default as much as `answer` and `caption` do.
        """
        media = self._open(inputs, sampling)
        if questions is None:
            return self.captioner.budget(media, max_tokens=max_tokens or 40)
        return self.answerer.budget(media, questions, max_tokens=max_tokens or 32)

    def expert_use(self, inputs: Sequence[MediaSource]) -> list[RoutingStatistics]:
        """Which experts each input and its caption call, by kind of token (`image`, `text`)."""
        media = self._open(inputs, None)
        return expert_use(self.parts, media, self.captioner.caption(media))

    def embed_images(
        self, inputs: Sequence[MediaSource], *, sampling: Sampler | None = None, width: int | None = None
    ) -> Vectors:
        """float32 `[N, S]`, unit length, in the space that texts and clips share; `width` keeps their first numbers."""
        return shortened(self.embedder.embed_media(self._open(inputs, sampling)), width)

    def embed_videos(
        self, inputs: Sequence[MediaSource], *, sampling: Sampler | None = None, width: int | None = None
    ) -> Vectors:
        """The same as `embed_images`."""
        return self.embed_images(inputs, sampling=sampling, width=width)

    def embed_texts(self, texts: Sequence[str], *, width: int | None = None) -> Vectors:
        """float32 `[N, S]`, unit length."""
        return shortened(self.embedder.embed_texts(texts), width)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text `embed_texts` reads: with those that begin and end it, without padding."""
        return self.embedder.count_tokens(texts)

    def compose(self, image: MediaSource, text: str, *, weight: float = 0.5) -> Vectors:
        """float32 `[S]`: a query of a picture and words, the words weighing `weight` and the picture the rest."""
        return composed([self.embed_images([image])[0], self.embed_texts([text])[0]], [1 - weight, weight])

    def classify(
        self,
        inputs: Sequence[MediaSource],
        names: Sequence[str],
        *,
        templates: Sequence[str] = TEMPLATES,
        sampling: Sampler | None = None,
    ) -> list[list[Chance]]:
        """For each input every class of `names`, likeliest first; a class is all `templates` with its name in them."""
        vectors = self.embed_images(inputs, sampling=sampling)
        return classified(vectors, names, templates, self.embed_texts, self.similarity_scale)

    def match(
        self, inputs: Sequence[MediaSource], texts: Sequence[str], *, sampling: Sampler | None = None
    ) -> list[float]:
        """For each pair how likely the text is as the input's caption, in nats a token: slower than a similarity."""
        return Matcher(self.parts).match(self._open(inputs, sampling), texts)

    def moments(
        self, video: MediaSource, texts: Sequence[str], *, sampling: Sampler | None = None
    ) -> list[list[Moment]]:
        """For each text the stretches of the video's time that are nearest to it, best first; two frames a second.

        Raises `BadInput` for a picture, which has no time.
        """
        clip = open_media(video, self.sampling(sampling or WATCHED))
        return moments_of(clip, texts, self.embed_images, self.embed_texts)

    def sampling(self, wanted: Sampler | None = None) -> Sampler:
        """What picks a video's frames: `wanted`, or what the card says, with a frame's tokens known to it."""
        chosen = wanted or self.video.sampling
        return chosen if self.frame_tokens is None else chosen.fitted(self.frame_tokens)

    def _open(self, inputs: Sequence[MediaSource], sampling: Sampler | None) -> list[Media]:
        return [open_media(item, self.sampling(sampling)) for item in inputs]
