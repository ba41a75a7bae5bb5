"""Zero-shot classification: the class whose name, put into sentences, lies nearest to the picture.

N pictures, C classes, P sentences a class, S shared width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm.conversation.texts import check_texts
from vlm.errors import BadInput
from vlm.vectors import Vectors

TEMPLATES = ("a photo of a {label}.",)


@dataclass(frozen=True)
class Chance:
    """A class and how likely it is among those given."""

    name: str
    probability: float


def sentences(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every name in every template, name by name.

    Raises `BadInput` for fewer than two names, one that is no text or there twice, and a template without `{label}`.
    """
    check_texts(names, "name")
    if len(names) < 2 or len(set(names)) < len(names):
        raise BadInput(f"expected at least two different names of classes, got {', '.join(names) or 'none'}")
    for template in templates or [""]:
        if "{label}" not in template:
            raise BadInput(f"template {template!r}: expected {{label}} where the class's name belongs")
    return [template.replace("{label}", name) for name in names for template in templates]


def class_vectors(vectors_CPS: Vectors) -> NDArray[np.float64]:
    """`[C, S]`: the mean of a class's unit vectors, made unit length again (Radford et al. 2021, section 3.1.4)."""
    class_CS = vectors_CPS.mean(axis=1, dtype=np.float64)
    class_CS /= np.linalg.norm(class_CS, axis=1, keepdims=True)
    return class_CS


def probabilities(images_NS: Vectors, class_CS: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """`[N, C]`: the softmax over classes of the similarities times `scale`, the model's own inverse temperature."""
    logits_NC = scale * (images_NS @ class_CS.T)
    chance_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    chance_NC /= chance_NC.sum(axis=1, keepdims=True)
    return chance_NC


def classified(
    images_NS: Vectors,
    names: Sequence[str],
    templates: Sequence[str],
    embed_texts: Callable[[Sequence[str]], Vectors],
    scale: float,
) -> list[list[Chance]]:
    """For each picture every class, likeliest first. Raises `BadInput` as `sentences` does."""
    texts_CPS = embed_texts(sentences(names, templates)).reshape(len(names), len(templates), -1)
    found = []
    for chances_C in probabilities(images_NS, class_vectors(texts_CPS), scale):
        order = np.argsort(-chances_C, kind="stable")
        found.append([Chance(names[c], float(chances_C[c])) for c in order])
    return found
