"""Question answering: pictures or clips and a question each, to a short answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vlm.conversation.budget import PictureTokens, TokenBudget
from vlm.conversation.template import Template
from vlm.engine.greedy import greedy
from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.models.assemble import Assembled
from vlm.models.vision_language import VisionLanguageModel

MAX_QUESTION_TOKENS = 1024


class Answerer:
    """Reads the picture's patch tokens and the question, writes greedily."""

    def __init__(self, assembled: Assembled):
        self.model = assembled.model
        self.template = Template(assembled.tokenizer)
        self.says_times = assembled.card.video.times

    def answer(
        self, media: Sequence[Media], questions: Sequence[str], *, max_tokens: int = 32, batch: int = 16
    ) -> list[str]:
        """One answer a pair. Raises `BadInput` for an empty or overlong question, or counts that differ."""
        for row in self.budget(media, questions, max_tokens=max_tokens):
            row.check()
        # Several questions about one picture look at it once.
        unique = {id(item): item for item in media}
        seen = dict(zip(unique, tower_patches(self.model, [*unique.values()]), strict=True))
        times = [self._times(item) for item in media]
        patches = [seen[id(item)] for item in media]
        return self.answer_patches(patches, questions, times=times, max_tokens=max_tokens, batch=batch)

    def budget(self, media: Sequence[Media], questions: Sequence[str], *, max_tokens: int = 32) -> list[TokenBudget]:
        """What each pair of input and question costs; nothing is computed. Raises `BadInput` as `answer`."""
        same_number(media, questions)
        rows = []
        for item, question in zip(media, questions, strict=True):
            tokens, lines = self.model.cfg.lines(len(item.frames))
            prompt = self.prompt(question, len(item.frames), self._times(item))
            seen = (PictureTokens(tokens, frames=len(item.frames) // lines),) * lines
            words = len(prompt) - tokens * lines
            rows.append(TokenBudget(seen, words, max_tokens, self.model.cfg.language.context, item.source))
        return rows

    def answer_patches(
        self,
        patches: Sequence[Tensor],
        questions: Sequence[str],
        *,
        times: Sequence[Sequence[float]] | None = None,
        max_tokens: int = 32,
        batch: int = 16,
    ) -> list[str]:
        """The same, from patch tokens `[F, N, D]` a picture or clip; `times` are what its prompt says, F or none."""
        same_number(patches, questions)
        rows = [
            self.prompt(question, len(frames), seconds)
            for frames, question, seconds in zip(patches, questions, times or [()] * len(patches), strict=True)
        ]
        answers: list[str] = []
        for chunk, prompts in zip(batched(patches, batch), batched(rows, batch), strict=True):
            dtype = self.model.language.embedding.weight.dtype
            replies = greedy(
                self.model,
                list(prompts),
                torch.cat(list(chunk)).to(dtype),
                frames=[[len(frames)] for frames in chunk],
                stop=self.template.end,
                max_tokens=max_tokens,
            )
            answers += [self.template.tokenizer.decode(reply).strip() for reply in replies]
        return answers

    def prompt(self, question: str, frames: int = 1, times: Sequence[float] = ()) -> list[int]:
        """The tokens of one request. Raises `BadInput` for an empty or overlong question."""
        if not question.strip():
            raise BadInput("the question is empty; expected some text")
        context = self.template.context(question)
        if len(context) > MAX_QUESTION_TOKENS:
            raise BadInput(f"the question is {len(context)} tokens long; expected at most {MAX_QUESTION_TOKENS}")
        return self.template.prefix(*self.model.cfg.lines(frames), times) + context

    def _times(self, item: Media) -> Sequence[float]:
        """What the prompt says of when frames are."""
        return item.times if item.timed and self.says_times else ()


def same_number(inputs: Sequence, questions: Sequence[str]) -> None:
    """Raise `BadInput` unless there is a question an input."""
    if len(inputs) != len(questions):
        raise BadInput(f"expected one question an input, got {len(inputs)} inputs and {len(questions)} questions")


@torch.inference_mode()
def tower_patches(model: VisionLanguageModel, media: Sequence[Media]) -> list[Tensor]:
    """Patch tokens `[F, N, D]` of each picture (F = 1) or clip."""
    return [model.tower(model.tower.preprocess(list(item.frames))).tokens_BND for item in media]


def batched(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
