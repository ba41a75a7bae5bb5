"""Captions and answers of published models, which have a processor and a template of their own."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from vlm.conversation.budget import TokenBudget
from vlm.engine.greedy import greedy_tiled
from vlm.errors import BadInput
from vlm.families.published import Published
from vlm.heads.captioning import caption_prompts
from vlm.heads.vqa import batched, same_number
from vlm.media.open import Media
from vlm.media.video.sampling import Clip
from vlm.models.tiled import Inputs, left_padded


class ChatHead:
    """Asks the published model in its own words; captioning is answering a fixed instruction."""

    def __init__(self, published: Published):
        self._published = published

    def caption(self, media: Sequence[Media], *, max_tokens: int = 40, batch: int = 16) -> list[str]:
        return self.answer(media, caption_prompts(media), max_tokens=max_tokens, batch=batch)

    def answer(
        self, media: Sequence[Media], questions: Sequence[str], *, max_tokens: int = 32, batch: int = 16
    ) -> list[str]:
        """One answer a pair. Raises `BadInput` for an empty question, counts that differ, and a request that is too
        long, before the model runs for its batch."""
        _check(media, questions)
        model, processor = self._published.model, self._published.processor
        device = model.language.embedding.weight.device
        answers: list[str] = []
        for chunk in batched([*zip(media, questions, strict=True)], batch):
            rows = [processor.question(question, seen(item)) for item, question in chunk]
            for (item, _), row in zip(chunk, rows, strict=True):
                self.count(row, max_tokens, item.source).check()
            ids, pixels, grids = left_padded(rows, model.pad_token)
            stop = self._published.stop
            replies = greedy_tiled(model, ids.to(device), pixels, grids, stop=stop, max_tokens=max_tokens)
            answers += [processor.decode(reply).strip() for reply in replies]
        return answers

    def budget(
        self, media: Sequence[Media], questions: Sequence[str] | None = None, *, max_tokens: int = 32
    ) -> list[TokenBudget]:
        """What each pair of input and question costs, or each caption; no weights are used."""
        questions = caption_prompts(media) if questions is None else questions
        _check(media, questions)
        question = self._published.processor.question
        return [
            self.count(question(text, seen(item)), max_tokens, item.source)
            for item, text in zip(media, questions, strict=True)
        ]

    def count(self, inputs: Inputs, max_tokens: int, source: str = "") -> TokenBudget:
        """What a conversation that is already processed costs."""
        grids = () if inputs.grids is None else inputs.grids.tolist()
        pictures = tuple(self._published.processor.picture_tokens((wide, high)) for wide, high in grids)
        words = inputs.input_ids.shape[1] - sum(picture.tokens for picture in pictures)
        return TokenBudget(pictures, words, max_tokens, self._published.model.language.cfg.context, source)


def _check(media: Sequence[Media], questions: Sequence[str]) -> None:
    same_number(media, questions)
    if any(not question.strip() for question in questions):
        raise BadInput("the question is empty; expected some text")


def seen(item: Media) -> Image.Image | Clip:
    """What a processor takes of an input."""
    if not item.is_clip:
        return item.frames[0]
    return Clip([*item.frames], [*item.times], item.source, item.duration)
