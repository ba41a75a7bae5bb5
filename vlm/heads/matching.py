"""How well a text fits a picture, by the language model: how likely it is as the picture's caption.

N pairs, R reply tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlm.conversation.packing import Packed, packed
from vlm.conversation.template import tidy
from vlm.conversation.texts import check_texts
from vlm.engine.likelihood import log_likelihoods
from vlm.errors import BadInput
from vlm.heads.writer import Writer, batched, caption_prompts
from vlm.media.open import Media
from vlm.models.processor import Prompt

TOGETHER = 16
"""Texts of one input in one sequence, which reads the input once."""


class Matcher:
    """Slower than a similarity and reads every word, so it is for the best few of a search."""

    def __init__(self, writer: Writer):
        self.writer = writer

    @torch.inference_mode()
    def match(self, media: Sequence[Media], texts: Sequence[str], *, batch: int = 8) -> list[float]:
        """For each pair the mean log-probability of the text's tokens, in nats: at most 0, higher fits better.

        The mean, since a longer text is less likely for its length alone. Texts of one input (the same object) are
        scored together. Raises `BadInput` for an empty text.
        """
        check_texts(texts)
        if len(media) != len(texts):
            raise BadInput(f"expected one text an input, got {len(media)} inputs and {len(texts)} texts")
        prompts = self.writer.prompts(media, caption_prompts(media))
        places: dict[int, list[int]] = {}
        for place, item in enumerate(media):
            places.setdefault(id(item), []).append(place)
        groups = [group for own in places.values() for group in batched(own, TOGETHER)]
        scores = [0.0] * len(media)
        for some in batched(groups, batch):
            chunk = [prompts[group[0]] for group in some]
            sequences = [
                self._sequence(prompt, [texts[place] for place in group])
                for prompt, group in zip(chunk, some, strict=True)
            ]
            seen = [
                tokens
                for prompt in chunk
                for item, layout in zip(prompt.media, prompt.layouts, strict=True)
                for tokens in self.writer.visual(item, layout)
            ]
            found = log_likelihoods(self.writer.model, sequences, seen)
            for group, sequence, chances_R in zip(some, sequences, found, strict=True):
                replies = chances_R.split([len(branch.reply) for branch in sequence.branches])
                for place, own_R in zip(group, replies, strict=True):
                    scores[place] = float(own_R.mean())
        return scores

    def _sequence(self, prompt: Prompt, texts: Sequence[str]) -> Packed:
        replies = [self.writer.processor.reply(tidy(text)) for text in texts]
        return packed([prompt.ids] * len(replies), replies)
