"""Captions and answers of published models, which have a processor and a template of their own."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from vlm.checkpoints.published import Published
from vlm.datasets.prompts import CAPTION_PROMPT, CLIP_PROMPT
from vlm.errors import BadInput
from vlm.heads.media import Media
from vlm.heads.vqa import batched
from vlm.inference.generate import greedy_tiled
from vlm.tiled_model import left_padded
from vlm.video.sampling import Clip


class ChatHead:
    """Asks the published model in its own words; captioning is answering a fixed instruction."""

    def __init__(self, published: Published):
        self._published = published

    def caption(self, media: Sequence[Media], *, max_tokens: int = 40, batch: int = 16) -> list[str]:
        prompts = [CLIP_PROMPT if item.is_clip else CAPTION_PROMPT for item in media]
        return self.answer(media, prompts, max_tokens=max_tokens, batch=batch)

    def answer(
        self, media: Sequence[Media], questions: Sequence[str], *, max_tokens: int = 32, batch: int = 16
    ) -> list[str]:
        """One answer a pair. Raises `BadInput` for an empty question, or counts that differ."""
        if len(media) != len(questions):
            raise BadInput(f"expected one question an input, got {len(media)} inputs and {len(questions)} questions")
        if any(not question.strip() for question in questions):
            raise BadInput("the question is empty; expected some text")
        model, processor = self._published.model, self._published.processor
        device = model.language.embedding.weight.device
        answers: list[str] = []
        for chunk in batched([*zip(media, questions, strict=True)], batch):
            rows = [processor.question(question, seen(item)) for item, question in chunk]
            ids, pixels, grids = left_padded(rows, model.pad_token)
            stop = self._published.stop
            replies = greedy_tiled(model, ids.to(device), pixels, grids, stop=stop, max_tokens=max_tokens)
            answers += [processor.decode(reply).strip() for reply in replies]
        return answers


def seen(item: Media) -> Image.Image | Clip:
    """What a processor takes of an input."""
    if not item.is_clip:
        return item.frames[0]
    return Clip([*item.frames], [*item.times], item.source, item.duration)
