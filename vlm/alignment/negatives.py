"""What a picture should not be matched with, but might: captions with swapped words, and the nearest wrong picture."""

from __future__ import annotations

import random
import re

import torch
from torch import Tensor

_SMALL = frozenset(
    "a an the and or but of in on at to for from by with into onto over under near as is are was were be been being "
    "has have had its it his her their this that these those there while who which".split()
)
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


def swapped_words(caption: str, rng: random.Random) -> str | None:
    """The caption with two of its words exchanged: "a dog chases a man" -> "a man chases a dog".

    Two different words of meaning (no articles, prepositions, auxiliaries) change places, each taking the other's
    capital. `None` where there are no two. After NegCLIP (arXiv:2210.01936, section 4), without its part-of-speech
    tagger: a swap may therefore give a caption that is not a sentence.
    """
    words = [match for match in _WORD.finditer(caption) if match[0].lower() not in _SMALL]
    pairs = [(a, b) for i, a in enumerate(words) for b in words[i + 1 :] if a[0].lower() != b[0].lower()]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    between = caption[first.end() : second.start()]
    before, after = caption[: first.start()], caption[second.end() :]
    return before + _cased(second[0], first[0]) + between + _cased(first[0], second[0]) + after


def _cased(word: str, like: str) -> str:
    return word[0].upper() + word[1:] if like[0].isupper() else word[0].lower() + word[1:]


def hardest(text_TD: Tensor, image_ID: Tensor, image_of_text_T: Tensor, k: int) -> Tensor:
    """The `k` nearest pictures that each text does not describe, nearest first, `[T, k]`.

    A batch made of texts and pictures that are in each other's way is harder than a random one.
    """
    scores_TI = text_TD @ image_ID.T
    own = image_of_text_T[:, None] == torch.arange(len(image_ID), device=scores_TI.device)
    return scores_TI.masked_fill(own, -torch.inf).topk(k, dim=1).indices
