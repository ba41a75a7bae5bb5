"""How well a text fits a picture, by the language model: how likely it is as the picture's caption.

N pairs, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlm.conversation.packing import Branch, Packed
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT, Template, tidy
from vlm.engine.likelihood import log_likelihoods
from vlm.errors import BadInput
from vlm.heads.vqa import batched, tower_patches
from vlm.media.open import Media
from vlm.models.assemble import Assembled

TOGETHER = 16
"""Texts of one input in one sequence, which reads the input once."""


class Matcher:
    """Slower than a similarity and reads every word, so it is for the best few of a search."""

    def __init__(self, assembled: Assembled):
        self.model, self.template = assembled.model, Template(assembled.tokenizer)

    @torch.inference_mode()
    def match(self, media: Sequence[Media], texts: Sequence[str], *, batch: int = 8) -> list[float]:
        """For each pair the mean log-probability of the text's tokens, in nats: at most 0, higher fits better.

        The mean, since a longer text is less likely for its length alone. Texts of one input (the same object) are
        scored together. Raises `BadInput` for an empty text.
        """
        if len(media) != len(texts):
            raise BadInput(f"expected one text an input, got {len(media)} inputs and {len(texts)} texts")
        if any(not text.strip() for text in texts):
            raise BadInput("a text is empty; expected some words")
        places: dict[int, list[int]] = {}
        for place, item in enumerate(media):
            places.setdefault(id(item), []).append(place)
        groups = [group for own in places.values() for group in batched(own, TOGETHER)]
        scores = [0.0] * len(media)
        for some in batched(groups, batch):
            items = [media[group[0]] for group in some]
            sequences = [
                self._sequence(item, [texts[place] for place in group]) for item, group in zip(items, some, strict=True)
            ]
            found = log_likelihoods(self.model, sequences, torch.cat(tower_patches(self.model, items)))
            for group, sequence, chances_R in zip(some, sequences, found, strict=True):
                replies = chances_R.split([len(branch.reply) for branch in sequence.branches])
                for place, own_R in zip(group, replies, strict=True):
                    scores[place] = float(own_R.mean())
        return scores

    def _sequence(self, item: Media, texts: Sequence[str]) -> Packed:
        prefix = self.template.prefix(self.model.cfg.visual_tokens, len(item.frames))
        context = self.template.context(CLIP_PROMPT if item.is_clip else CAPTION_PROMPT)
        return Packed(prefix, [Branch(context, self.template.reply(tidy(text))) for text in texts])
