"""Captioning: pictures or clips to one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm.conversation.budget import TokenBudget
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT
from vlm.heads.vqa import Answerer
from vlm.media.open import Media
from vlm.models.assemble import Assembled


class Captioner:
    """Captioning is answering a fixed instruction, one for pictures and one for clips."""

    def __init__(self, assembled: Assembled):
        self._answerer = Answerer(assembled)

    def caption(self, media: Sequence[Media], *, max_tokens: int = 40, batch: int = 16) -> list[str]:
        return self._answerer.answer(media, caption_prompts(media), max_tokens=max_tokens, batch=batch)

    def budget(self, media: Sequence[Media], *, max_tokens: int = 40) -> list[TokenBudget]:
        """What each caption costs; nothing is computed."""
        return self._answerer.budget(media, caption_prompts(media), max_tokens=max_tokens)

    def caption_patches(self, patches: Sequence[Tensor], *, max_tokens: int = 40, batch: int = 16) -> list[str]:
        """The same, from patch tokens `[F, N, D]`; more than one frame is a clip."""
        prompts = [CLIP_PROMPT if len(frames) > 1 else CAPTION_PROMPT for frames in patches]
        return self._answerer.answer_patches(patches, prompts, max_tokens=max_tokens, batch=batch)


def caption_prompts(media: Sequence[Media]) -> list[str]:
    """The instruction for each picture or clip."""
    return [CLIP_PROMPT if item.is_clip else CAPTION_PROMPT for item in media]
