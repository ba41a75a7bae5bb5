"""Caption metrics: raw strings in, `Score` out.

`references[i]` are the reference captions of `hypotheses[i]`. All are tokenised with `ptb_tokenizer.tokenize` unless a
tokenizer is given, and equal pycocoevalcap 1.2 (the COCO caption evaluation) on its tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vlm.errors import BadInput
from vlm.metrics.bleu import bleu
from vlm.metrics.cider import cider
from vlm.metrics.ptb_tokenizer import tokenize
from vlm.metrics.rouge import rouge_l
from vlm.metrics.score import Score

__all__ = ["Score", "bleu", "cider", "clip_score", "rouge_l", "tokenize"]


def clip_score(images_ND: ArrayLike, captions_ND: ArrayLike, weight: float = 2.5) -> Score:
    """CLIPScore (Hessel et al. 2021, section 3): `weight * max(cos, 0)` of each image and its caption, and their mean.

    Embeddings need not have unit length. Raises `BadInput` where the shapes differ or are not [N, D].
    """
    image, caption = np.asarray(images_ND, np.float64), np.asarray(captions_ND, np.float64)
    if image.shape != caption.shape or image.ndim != 2 or not image.size:
        raise BadInput(f"embeddings of shape {image.shape} and {caption.shape}; expected [N, D] for both")
    norms = np.linalg.norm(image, axis=1) * np.linalg.norm(caption, axis=1)
    cosine = (image * caption).sum(axis=1) / np.where(norms == 0, 1, norms)
    items = weight * np.maximum(cosine, 0)
    return Score(float(items.mean()), items.tolist())
