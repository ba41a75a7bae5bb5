"""The facade: a model and its three heads under one name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from vlm import hub
from vlm.checkpoints.assemble import Assembled, assemble
from vlm.checkpoints.card import load_card
from vlm.checkpoints.dual_encoders import is_dual_encoder, load_pair
from vlm.checkpoints.published import TilesByContent, load_folder
from vlm.checkpoints.trained import weights_hash
from vlm.errors import BadInput
from vlm.heads.captioning import Captioner
from vlm.heads.chat import ChatHead
from vlm.heads.classification import TEMPLATES, Chance, classified
from vlm.heads.experts import expert_use
from vlm.heads.matching import Matcher
from vlm.heads.media import Media, MediaSource, open_media
from vlm.heads.moments import WATCHED, Moment, moments_of
from vlm.heads.retrieval import Embedder, PairEmbedder, Vectors
from vlm.heads.vectors import composed, shortened
from vlm.heads.vqa import Answerer
from vlm.language.statistics import RoutingStatistics
from vlm.video.config import VideoConfig
from vlm.video.sampling.base import Sampler
from vlm.vision.detail import TilingConfig
from vlm.vision.merging import MergeConfig
from vlm.vision.tokens import TokenBudget


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    tiling: TilingConfig | None = None,
    merge: MergeConfig | None = None,
    offline: bool = False,
    report: Callable[[str], None] | None = None,
) -> Model:
    """A model by the name of a card in `configs/models/` or the path of a card; or, as its authors publish it, by its
    folder or the name of its repository on the hub (`owner/name`), which gives a `PublishedModel`, or a `DualEncoder`
    where the folder is open_clip's, or CLIP or SigLIP of transformers.

    What is missing is fetched once and kept; `offline=True` never touches the network. `report` is told of progress in
    words. `device` and `dtype` (the CPU and float32) are for published models; a card's stays where it was trained.
    `tiling` says how a published model's pictures become tiles, `merge` how many of a card's visual tokens are left.
    Raises `BadInput` for an unknown name (with the nearest one) and a folder that cannot be used, `VlmError` where no
    source answers.
    """
    from vlm.published import DualEncoder, PublishedModel

    name = str(name_or_path)
    folder = Path(name).expanduser()
    in_hub = not folder.is_dir() and hub.is_repository(name)
    if in_hub:
        folder = hub.snapshot(name, offline=offline, report=report)
    if folder.is_dir():
        if is_dual_encoder(folder):
            if device is not None or dtype is not None:
                raise BadInput(f"{name}: a dual encoder runs in float32 on the CPU; expected no device and no dtype")
            return DualEncoder(load_pair(folder), name if in_hub else folder.resolve().name)
        published = load_folder(folder, dtype or torch.float32)
        published.model.to(device or "cpu")
        if tiling is not None:
            if not isinstance(published.processor, TilesByContent):
                raise BadInput(f"model {name}: its pictures are not tiled by content, so it takes no tiling")
            published.processor.tiling = tiling
        if merge is not None:
            raise BadInput(f"model {name}: a published model's tokens are not merged; expected a card's name")
        return PublishedModel(published, name if in_hub else folder.resolve().name)
    card = load_card(name)
    if device is not None or dtype is not None:
        raise BadInput(f"model {card.name}: a card's model runs in float32 on the CPU; expected no device and no dtype")
    if tiling is not None:
        raise BadInput(f"model {card.name}: its pictures are not seen in tiles, so it takes no tiling")
    if merge is not None:
        card = card.merging(merge)
    return Model(assemble(card, offline=offline, report=report))


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
