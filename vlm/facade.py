"""A loaded model as a user knows it: it has a writer, an embedder, or both; what it cannot do is one line that says
what it is and what can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from vlm.conversation.texts import warn_of_losses
from vlm.errors import BadInput, Incapable
from vlm.heads.classification import TEMPLATES, Chance, classified
from vlm.heads.moments import WATCHED, Moment, moments_of
from vlm.media.open import Media, MediaSource, open_all, open_media, opener
from vlm.media.video.config import VideoConfig
from vlm.vectors import Vectors, composed, shortened

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from typing_extensions import Unpack

    from vlm.conversation.budget import TokenBudget
    from vlm.conversation.messages import Conversation, Messages
    from vlm.heads.decisions import Decision, Question
    from vlm.heads.retrieval import Embeds
    from vlm.heads.sessions import ModelSessions
    from vlm.heads.writer import ChatOptions, Writer
    from vlm.language.mixture.statistics import RoutingStatistics
    from vlm.media.video.sampling.base import Sampler
    from vlm.models.assembled import Assembled
    from vlm.models.card import ModelCard
    from vlm.models.processor import Processor
    from vlm.models.vision_language import VisionLanguageModel

CAPTION_TOKENS, ANSWER_TOKENS, CHAT_TOKENS = 40, 32, 256
"""Of a reply, at most."""


class Model:
    """What a user asks of a model. An input is a path, a URL, a `PIL.Image`, an array, a video's path, or a `Clip`.

    `sampling` says which frames of a video are looked at; by default what the model's card says (`video.sampling`).
    Raises `BadInput` in one line for an input that cannot be used, and for what the model cannot do.
    """

    def __init__(
        self, name: str, about: str, *, writer: Writer | None = None, embedder: Embeds | None = None,
        parts: Assembled | None = None, card: ModelCard | None = None, modules: Sequence[nn.Module | None] = (),
        video: VideoConfig | None = None, settings: Mapping[str, str] | None = None,
    ):  # fmt: skip
        """`about` says what the model is, as in "a dual encoder"; `card` is what it was made from, where it was;
        `modules` hold all its weights."""
        self.name, self.about = name, about
        self.writer, self.embedder, self.parts, self._modules = writer, embedder, parts, tuple(modules)
        self.card = card if parts is None else parts.card
        self.video = video or VideoConfig()
        self.settings = dict(settings or {})
        """What else answers depend on beside the weights, where it is not as usual: `merge`, `tiling`."""

    @property
    def frame_tokens(self) -> int | None:
        """Visual tokens of a frame, where it is always as many."""
        card = self.card
        return None if card is None or card.model.tower.budget is not None else card.model.visual_tokens

    def weights_hash(self) -> str:
        """sha256 over all weights, so that a result can say what gave it."""
        from vlm.models.trained import weights_hash

        return weights_hash(self._modules)

    @property
    def can(self) -> frozenset[str]:
        """What of `writes` (about pictures), `matches` (texts to pictures) and `embeds` it can do."""
        sees = self.writer is not None and self.writer.model.tower is not None
        return frozenset(["writes", "matches"] * sees + ["embeds"] * (self.embedder is not None))

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by before a softmax over them: the learned inverse temperature."""
        return self._embeds().scale

    def caption(
        self, inputs: Sequence[MediaSource], *, max_tokens: int = CAPTION_TOKENS, batch: int = 16, beams: int = 1,
        sampling: Sampler | None = None,
    ) -> list[str]:  # fmt: skip
        """One sentence an input; `batch` sentences are written at once and do not depend on it. Several `beams` search
        for a likelier sentence than the likeliest words one by one make, an input at a time."""
        media = self._open(inputs, sampling)
        return self._sees("caption").caption(media, max_tokens=max_tokens, batch=batch, beams=beams)

    def answer(
        self, inputs: Sequence[MediaSource], questions: Sequence[str], *, max_tokens: int = ANSWER_TOKENS,
        batch: int = 16, sampling: Sampler | None = None,
    ) -> list[str]:  # fmt: skip
        """One answer a pair of input and question; `batch` answers are written at once and do not depend on it."""
        writer = self._sees("answer questions about pictures")
        return writer.answer(self._open(inputs, sampling), questions, max_tokens=max_tokens, batch=batch)

    @overload
    def chat(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, *, stream: Literal[False] = False,
        sampling: Sampler | None = None, **options: Unpack[ChatOptions],
    ) -> str: ...  # fmt: skip

    @overload
    def chat(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, *, stream: Literal[True],
        sampling: Sampler | None = None, **options: Unpack[ChatOptions],
    ) -> Iterator[str]: ...  # fmt: skip

    def chat(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, *, stream: bool = False,
        sampling: Sampler | None = None, **options: Unpack[ChatOptions],
    ) -> str | Iterator[str]:  # fmt: skip
        """The reply to a conversation: several turns, several pictures and clips, a system turn, or text alone.
        Messages have OpenAI's shape, or texts with `<image>` where pictures of `images` stand
        (`vlm.conversation.messages`). With `stream` the reply comes in pieces as it is written."""
        pieces = self._writes("chat").chat(messages, images, open_one=opener(self.sampling(sampling)), **options)
        return pieces if stream else "".join(pieces).strip()

    def replies(
        self, conversations: Sequence[Conversation], *, max_tokens: int = CHAT_TOKENS, batch: int = 16, beams: int = 1
    ) -> list[str]:
        """The reply to each conversation whose media are open, as `caption` writes them."""
        writer = self._writes("chat")
        prompts = [writer.processor.prompt(said.messages, said.media) for said in conversations]
        return writer.write(prompts, max_tokens=max_tokens, batch=batch, beams=beams)

    def budget(
        self, inputs: Sequence[MediaSource], questions: Sequence[str] | None = None, *, max_tokens: int | None = None,
        sampling: Sampler | None = None,
    ) -> list[TokenBudget]:  # fmt: skip
        """What each answer costs, or each caption without `questions`, in tokens; no weights are used.
        `max_tokens` is what is kept free for the reply, by default as much as `answer` and `caption` do."""
        asks = questions is not None
        writer = self._sees("answer questions about pictures" if asks else "caption")
        usual = ANSWER_TOKENS if asks else CAPTION_TOKENS
        return writer.budget(self._open(inputs, sampling), questions, max_tokens=max_tokens or usual)

    def count(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, *, max_tokens: int = CHAT_TOKENS
    ) -> TokenBudget:
        """What a conversation costs in tokens, and a reply; no pixels are made and no weights are used."""
        writer = self._writes("count a conversation")
        return writer.count(writer.processor.read(messages, images, opener(self.sampling())), max_tokens)

    def expert_use(self, inputs: Sequence[MediaSource]) -> list[RoutingStatistics]:
        """Which experts each input and its caption call, by kind of token (`image`, `text`)."""
        from vlm.heads.experts import expert_use

        writer = self._sees("show which experts pictures call")
        if not writer.model.language.routers():
            raise Incapable(f"model {self.name}: no mixture layers, so no experts")
        media = self._open(inputs, None)
        return expert_use(writer, media, writer.caption(media))

    def match(
        self, inputs: Sequence[MediaSource], texts: Sequence[str], *, sampling: Sampler | None = None
    ) -> list[float]:
        """For each pair how likely the text is as the input's caption, in nats a token: slower than a similarity."""
        from vlm.heads.matching import Matcher

        return Matcher(self._sees("match texts to pictures")).match(self._open(inputs, sampling), texts)

    def decide(
        self, inputs: Sequence[MediaSource | Messages], questions: Sequence[Question], *,
        temperatures: str | Path | None = None, sampling: Sampler | None = None,
    ) -> list[list[Decision]]:  # fmt: skip
        """For each input (or conversation, for a text) the answer to each question of `vlm.heads.decisions`, as
        probabilities. `temperatures` is a `decision.json`; by default the one in the model's folder, where there is."""
        from vlm.heads.decisions.decider import Decider, is_messages
        from vlm.heads.decisions.temperature import chosen

        texts = all(is_messages(one) for one in inputs)
        writer = self._writes("decide") if texts else self._sees("decide about pictures")
        decider = Decider(writer, chosen(temperatures, self.parts.folder if self.parts else None))
        open_one = opener(self.sampling(sampling))
        return [decider.decide(decider.about(one, open_one), questions).answers for one in inputs]

    def embed_images(
        self, inputs: Sequence[MediaSource], *, sampling: Sampler | None = None, width: int | None = None
    ) -> Vectors:
        """float32 `[N, S]`, unit length, in the space that texts and clips share; `width` keeps their first numbers."""
        return shortened(self._embeds().embed_media(self._open(inputs, sampling)), width)

    def embed_videos(self, inputs: Sequence[MediaSource], **options: Any) -> Vectors:
        """The same as `embed_images`."""
        return self.embed_images(inputs, **options)

    def embed_texts(self, texts: Sequence[str], *, width: int | None = None) -> Vectors:
        """float32 `[N, S]`, unit length. Warns where words of a text are not read, or not known."""
        vectors = self._embeds().embed_texts(texts)
        warn_of_losses(texts, self._embeds().text_notes(texts))
        return shortened(vectors, width)

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """Of each text what `embed_texts` loses: what is beyond the tokens it reads, and words it does not know."""
        return self._embeds().text_notes(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text `embed_texts` reads: with those that begin and end it, without padding."""
        return self._embeds().count_tokens(texts)

    def compose(self, image: MediaSource, text: str, *, weight: float = 0.5) -> Vectors:
        """float32 `[S]`: a query of a picture and words, the words weighing `weight` and the picture the rest."""
        return composed([self.embed_images([image])[0], self.embed_texts([text])[0]], [1 - weight, weight])

    def classify(
        self, inputs: Sequence[MediaSource], names: Sequence[str], *, templates: Sequence[str] = TEMPLATES,
        sampling: Sampler | None = None,
    ) -> list[list[Chance]]:  # fmt: skip
        """For each input every class of `names`, likeliest first; a class is all `templates` with its name in them."""
        vectors = self.embed_images(inputs, sampling=sampling)
        return classified(vectors, names, templates, self.embed_texts, self.similarity_scale)

    def moments(
        self, video: MediaSource, texts: Sequence[str], *, sampling: Sampler | None = None
    ) -> list[list[Moment]]:
        """For each text the stretches of the video's time that are nearest to it, best first; two frames a second.
        Raises `BadInput` for a picture, which has no time."""
        self._embeds()
        clip = open_media(video, self.sampling(sampling or WATCHED))
        return moments_of(clip, texts, self.embed_images, self.embed_texts)

    @property
    def sessions(self) -> ModelSessions:
        """Conversations in files: `.save(path, messages, images)`, and `.restore(path)` gives the messages back."""
        from vlm.heads.sessions import ModelSessions

        return ModelSessions(self._writes("keep conversations"), self.name, opener(self.sampling()))

    @property
    def model(self) -> VisionLanguageModel:
        """What is underneath: tower, projector, arrangement, language model."""
        return self._writes("show a model underneath").model

    @property
    def processor(self) -> Processor:
        """`processor(messages, images)` gives `input_ids`, `pixels` and `grids`: what `logits` and `generate` take."""
        return self._writes("process conversations").processor

    def logits(self, input_ids: Any, pixels: Any = None, grids: Any = None, *, mask: Any = None) -> Tensor:
        """float32 `[B, T, V]` for ids `[B, T]` with an image token at each slot.
        `pixels` are the tiles of all pictures in reading order, `grids` says how many of them each picture has.
        `mask [B, T]` is false (or 0) at padding; by default at the padding a sequence begins with. The logits of
        padding mean nothing. Raises `BadInput` where ids, pixels and grids do not fit together."""
        from vlm.heads.tensor_inputs import logits

        return logits(self._writes("give logits"), input_ids, pixels, grids, mask)

    def generate(
        self, input_ids: Any, pixels: Any = None, grids: Any = None, *, mask: Any = None, max_tokens: int = 64
    ) -> list[list[int]]:
        """The most likely tokens after each row of a batch padded on the left, without the token that ends a reply."""
        from vlm.heads.tensor_inputs import generate

        return generate(self._writes("generate"), input_ids, pixels, grids, mask, max_tokens)

    def save(self, folder: str | Path, *, shard_size: str | int = "5GB") -> Path:
        """Write the model as a folder: a published family's in its authors' format, a card's as one that `vlm.load`
        reads back; safetensors are sharded above `shard_size`. Raises `BadInput` for a model that cannot be saved."""
        from vlm.models.saving import save

        if self.parts is None:
            raise BadInput(f"model {self.name} is {self.about}: it cannot be saved; expected one that writes")
        return save(self.parts, Path(folder).expanduser(), shard_size)

    def sampling(self, wanted: Sampler | None = None) -> Sampler:
        """What picks a video's frames: `wanted`, or what the card says, with a frame's tokens known to it."""
        chosen = wanted or self.video.sampling
        return chosen if self.frame_tokens is None else chosen.fitted(self.frame_tokens)

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Model:
        """Itself, moved to another device or another type; `None` leaves as it is."""
        from vlm.models.vision_language import move

        move([module for module in self._modules if module is not None], device, dtype)
        return self

    def _writes(self, what: str) -> Writer:
        if self.writer is None:
            raise Incapable(f"model {self.name} is {self.about}: it cannot {what}; expected one that writes, like nano")
        return self.writer

    def _sees(self, what: str) -> Writer:
        if (writer := self._writes(what)).model.tower is None:
            raise Incapable(f"model {self.name} is {self.about}: it cannot {what}; expected one that sees, like nano")
        return writer

    def _embeds(self) -> Embeds:
        if self.embedder is None:
            lacks = f"{self.about}: it has no space that pictures and texts share"
            raise Incapable(f"model {self.name} is {lacks}; expected one that has, like nano")
        return self.embedder

    def _open(self, inputs: Sequence[MediaSource], sampling: Sampler | None) -> list[Media]:
        return open_all(inputs, self.sampling(sampling))
