"""Whatever a model writes: captions, answers, replies of a conversation. One way for every model.

T tokens, M visual tokens of a picture, D language width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from vlm.conversation.budget import TokenBudget
from vlm.conversation.messages import Messages
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT
from vlm.conversation.texts import check_texts
from vlm.engine.beams import beam_search, check_beams
from vlm.engine.conversing import Replies
from vlm.engine.request import Request, Sampling
from vlm.errors import BadInput
from vlm.media.open import Media, MediaSource, open_media
from vlm.models.assembled import Assembled
from vlm.models.processor import Layout, Open, Prompt


class ChatOptions(TypedDict, total=False):
    """How a reply of a conversation is written."""

    max_tokens: int
    """256 by default."""
    temperature: float
    """0, the default, takes the likeliest token each time."""
    top_p: float
    """Draw from the likeliest that have this mass together."""
    seed: int | None
    """The same one draws the same reply."""
    stop: Sequence[str]
    """Texts before which a reply ends."""


class Writer:
    """Asks the model in its own words. Captioning is asking with a fixed instruction."""

    def __init__(self, parts: Assembled):
        self.model, self.processor = parts.model, parts.processor
        self.context = parts.model.language.cfg.context
        self.replies = Replies(self.model, self.processor)

    def caption(self, media: Sequence[Media], *, max_tokens: int = 40, batch: int = 16, beams: int = 1) -> list[str]:
        """A sentence an input."""
        prompts = self.prompts(media, caption_prompts(media))
        return self.write(prompts, max_tokens=max_tokens, batch=batch, beams=beams)

    def answer(
        self, media: Sequence[Media], questions: Sequence[str], *, max_tokens: int = 32, batch: int = 16
    ) -> list[str]:
        """One answer a pair. Raises `BadInput` for an empty question, counts that differ, and a request that is too
        long, before the model runs."""
        return self.write(self.prompts(media, questions), max_tokens=max_tokens, batch=batch)

    def prompts(self, media: Sequence[Media], questions: Sequence[str]) -> list[Prompt]:
        """The prompt of each pair of input and question; no pixels are made."""
        check_texts(questions, "question")
        same_number(media, questions)
        return [
            self.processor.prompt(self.processor.user_messages(text, item), [item])
            for item, text in zip(media, questions, strict=True)
        ]

    def budget(
        self, media: Sequence[Media], questions: Sequence[str] | None = None, *, max_tokens: int = 32
    ) -> list[TokenBudget]:
        """What each pair of input and question costs, or each caption; no pixels are made and no weights used."""
        questions = caption_prompts(media) if questions is None else questions
        return [self.count(prompt, max_tokens) for prompt in self.prompts(media, questions)]

    def count(self, prompt: Prompt, max_tokens: int) -> TokenBudget:
        return self.processor.budget(prompt, max_tokens, self.context)

    def chat(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, *, max_tokens: int = 256,
        temperature: float = 0.0, top_p: float = 1.0, seed: int | None = None, stop: Sequence[str] = (),
        open_one: Open = open_media,
    ) -> Iterator[str]:  # fmt: skip
        """The reply to a conversation, in pieces as it is written; it ends before any of `stop`."""
        prompt = self.processor.read(messages, images, open_one)
        sampling = Sampling(temperature, top_p=top_p, seed=seed)
        return self.replies.stream(Request(prompt, max_tokens, sampling, tuple(stop)))

    def write(self, conversations: Sequence[Prompt], *, max_tokens: int, batch: int, beams: int = 1) -> list[str]:
        """The reply to each, `batch` at a time, or with several `beams` one by one; raises `BadInput` for one that is
        too long, before the model runs."""
        check_beams(beams)
        for prompt in conversations:
            self.count(prompt, max_tokens).check()
        if beams > 1:
            return [self._searched(prompt, max_tokens, beams) for prompt in conversations]
        found = self.replies.texts([Request(prompt, max_tokens) for prompt in conversations], batch)
        return [reply.strip() for reply in found]

    @torch.inference_mode()
    def _searched(self, prompt: Prompt, max_tokens: int, beams: int) -> str:
        seen = [self.visual(item, layout) for item, layout in zip(prompt.media, prompt.layouts, strict=True)]
        ids_1T = torch.tensor([prompt.ids], device=self.model.device)
        x_TD = self.model.embed(ids_1T, [tokens for item in seen for tokens in item])[0]
        stop = self.processor.stop_tokens
        tokens = beam_search(self.model.language, x_TD, beams=beams, stop=stop, max_tokens=max_tokens)
        return self.processor.decode(tokens).strip()

    @torch.inference_mode()
    def visual(self, item: Media, layout: Layout) -> list[Tensor]:
        """The visual tokens `[M, D]` of a picture, or of a clip's frames."""
        return self.model.visual(self.processor.pixels(item, layout), layout.grids)


def caption_prompts(media: Sequence[Media]) -> list[str]:
    """The instruction for each picture or clip."""
    return [CLIP_PROMPT if item.is_clip else CAPTION_PROMPT for item in media]


def same_number(inputs: Sequence, questions: Sequence[str]) -> None:
    """Raise `BadInput` unless there is a question an input."""
    if len(inputs) != len(questions):
        raise BadInput(f"expected one question an input, got {len(inputs)} inputs and {len(questions)} questions")


def batched(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
