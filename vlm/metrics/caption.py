"""Caption metrics: raw strings in, `Score` out.

`references[i]` are the reference captions of `hypotheses[i]`. All are tokenised by `ptb_tokenizer`, the hypotheses as
one list and the references as another, unless a tokenizer is given, and equal pycocoevalcap 1.2 (the COCO caption
evaluation) on its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm.errors import BadInput
from vlm.metrics.bleu import bleu
from vlm.metrics.cider import cider
from vlm.metrics.java import NotAvailable, meteor, spice
from vlm.metrics.ptb_tokenizer import joined_lines, tokenize
from vlm.metrics.rouge import rouge_l
from vlm.metrics.score import Score

__all__ = [
    "NotAvailable",
    "Score",
    "bleu",
    "cider",
    "clip_score",
    "meteor",
    "ptb_tokenize",
    "ref_clip_score",
    "rouge_l",
    "spice",
    "tokenize",
]


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Each text's tokens joined by spaces, as pycocoevalcap's `PTBTokenizer` writes them for the whole list: how a text
    ends can depend on how the next begins (`vlm.metrics.ptb_tokenizer`)."""
    if isinstance(texts, str):
        raise BadInput("texts are one string; expected a list of strings")
    return joined_lines(texts)


def clip_score(images_ND: ArrayLike, captions_ND: ArrayLike, weight: float = 2.5) -> Score:
    """CLIPScore (Hessel et al. 2021, section 3): `weight * max(cos, 0)` of each image and its caption, and their mean.

    Embeddings need not have unit length. Raises `BadInput` where the shapes differ or are not [N, D].
    """
    image, caption = np.asarray(images_ND, np.float64), np.asarray(captions_ND, np.float64)
    if image.shape != caption.shape or image.ndim != 2 or not image.size:
        raise BadInput(f"embeddings of shape {image.shape} and {caption.shape}; expected [N, D] for both")
    items = weight * np.maximum((_unit(image) * _unit(caption)).sum(axis=1), 0)
    return Score(float(items.mean()), items.tolist())


def ref_clip_score(
    images_ND: ArrayLike, captions_ND: ArrayLike, references: Sequence[ArrayLike], weight: float = 2.5
) -> Score:
    """RefCLIPScore (Hessel et al. 2021, section 3): CLIPScore's harmonic mean with the nearest reference's cosine.

    `references[i]` are the embeddings [R_i, D] of item i's reference captions. The cosine is clipped at 0 as in the
    paper (the published code does not), and an item where either part is 0 scores 0. Raises `BadInput` as `clip_score`
    and where an item has no references or ones of another width.
    """
    score = np.asarray(clip_score(images_ND, captions_ND, weight).per_item)
    captions = _unit(np.asarray(captions_ND, np.float64))
    if len(references) != len(captions):
        raise BadInput(f"{len(references)} lists of references for {len(captions)} captions; expected one each")
    nearest = np.zeros(len(captions))
    for i, embeddings_RD in enumerate(references):
        wanted = np.asarray(embeddings_RD, np.float64)
        if wanted.ndim != 2 or not wanted.size or wanted.shape[1] != captions.shape[1]:
            raise BadInput(f"references of item {i} have shape {wanted.shape}; expected [R, {captions.shape[1]}]")
        nearest[i] = max(0.0, float((_unit(wanted) @ captions[i]).max()))
    both = score + nearest
    items = np.divide(2 * score * nearest, both, out=np.zeros_like(both), where=both > 0)
    return Score(float(items.mean()), items.tolist())


def _unit(rows_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows_ND / np.where(norms == 0, 1, norms)
