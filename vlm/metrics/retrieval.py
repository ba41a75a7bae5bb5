"""Retrieval metrics from a matrix of similarities between texts and images (or clips).

Legend: T texts, I images, Q queries, C candidates. Both directions come from one matrix `similarity_TI` and
`image_of_text_T`, the index of the image each text describes. Text to image: a text has one right image. Image to text:
any of the image's texts is right (the any-of protocol of Flickr30k and COCO, as in BLIP, CLIP_benchmark's
`text_retrieval_recall` and CLIP4Clip); an image that no text describes is a distractor and not a query.

Equal similarities are common (saturated or quantised scores, duplicate captions), and a sort then decides the score by
the order of the data. Here `ties` decides, by name:

- `"mean"`: the middle of the best and the worst case: a rank is their mean (so half ranks occur; a rank of k and a half
  still counts for recall at k), AP and nDCG are the expectation over all orders of the tied (McSherry and Najork 2008;
  for nDCG that is scikit-learn's default).
- `"optimistic"`: what is right comes first among its equals.
- `"pessimistic"`: what is right comes last among its equals. AP is then scikit-learn's `average_precision_score`: of
  several right ones among equals each counts with the precision after all of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm.errors import BadInput, unknown

Ties = Literal["mean", "optimistic", "pessimistic"]
Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
_BLOCK = 512  # queries compared at a time, to bound memory


@dataclass(frozen=True)
class Ranks:
    """One direction: the rank of the first right candidate of each query (1 is best), and what follows from it."""

    ranks: Floats
    recall: dict[int, float]
    median_rank: float
    mean_rank: float
    mean_reciprocal_rank: float


@dataclass(frozen=True)
class RetrievalReport:
    """Both directions of one matrix. Recalls are fractions of the queries."""

    text_to_image: Ranks
    image_to_text: Ranks

    @property
    def mean_recall(self) -> float:
        """Mean over both directions and all k ("R-mean", "RSUM" divided by their number)."""
        values = [*self.text_to_image.recall.values(), *self.image_to_text.recall.values()]
        return sum(values) / len(values)


@dataclass(frozen=True)
class BothWays:
    """A value for text to image and one for image to text."""

    text_to_image: float
    image_to_text: float


def recall_at_k(
    similarity_TI: ArrayLike, image_of_text_T: ArrayLike, ks: Sequence[int] = (1, 5, 10), *, ties: Ties = "mean"
) -> RetrievalReport:
    """Recall at each k, median, mean and mean reciprocal rank, in both directions.

    Recall at k is the share of queries whose first right candidate ranks k or better; ranks are as `ties` says.
    Raises `BadInput` for shapes that do not fit, indices out of range, or similarities that are not finite.
    """
    similarity, image = _checked(similarity_TI, image_of_text_T)
    if not ks or min(ks) < 1:
        raise BadInput(f"recall at k for k in {list(ks)}; expected one or more positive numbers")
    described = np.unique(image)
    right = np.arange(similarity.shape[1])
    return RetrievalReport(
        _summary(ranks(similarity, image, right, ties), ks),
        _summary(ranks(similarity.T[described], described, image, ties), ks),
    )


def mean_average_precision(similarity_TI: ArrayLike, image_of_text_T: ArrayLike, *, ties: Ties = "mean") -> BothWays:
    """Mean over the queries of average precision: the mean precision at the rank of each right candidate.

    Equal to trec_eval's `map` and, with `ties="pessimistic"`, to scikit-learn's `average_precision_score`.
    """
    return _both(similarity_TI, image_of_text_T, lambda groups: _average_precision(groups, ties), ties)


def ndcg(
    similarity_TI: ArrayLike, image_of_text_T: ArrayLike, k: int | None = None, *, ties: Ties = "mean"
) -> BothWays:
    """Mean normalised discounted cumulative gain with gains 0 and 1 and discount 1 / log2(1 + rank), cut after rank k.

    With `ties="mean"` equal to scikit-learn's `ndcg_score`, without ties also to trec_eval's `ndcg_cut`.
    """
    if k is not None and k < 1:
        raise BadInput(f"nDCG at k = {k}; expected a positive number")
    return _both(similarity_TI, image_of_text_T, lambda groups: _ndcg(groups, k, ties), ties)


def _checked(similarity_TI: ArrayLike, image_of_text_T: ArrayLike) -> tuple[NDArray[Any], NDArray[np.intp]]:
    similarity = np.asarray(similarity_TI)
    if similarity.ndim != 2 or not similarity.size:
        raise BadInput(f"similarity has shape {similarity.shape}; expected [texts, images]")
    if similarity.dtype.kind not in "biuf":
        raise BadInput(f"similarities are {similarity.dtype}; expected real numbers")
    if not np.isfinite(similarity).all():
        raise BadInput(f"{int((~np.isfinite(similarity)).sum())} similarities are not finite")
    return similarity, _indices(image_of_text_T, *similarity.shape)


def _indices(image_of_text_T: ArrayLike, texts: int, images: int) -> Groups:
    image = np.asarray(image_of_text_T)
    if image.shape != (texts,):
        raise BadInput(f"{image.shape} image indices for {texts} texts; expected one each")
    if image.dtype.kind not in "iu":
        raise BadInput(f"image indices are {image.dtype}; expected integers")
    if image.min() < 0 or image.max() >= images:
        raise BadInput(f"image indices {image.min()} to {image.max()} for {images} images")
    return image.astype(np.intp)


def recall_from_vectors(
    texts_TD: ArrayLike,
    images_ID: ArrayLike,
    image_of_text_T: ArrayLike,
    ks: Sequence[int] = (1, 5, 10),
    *,
    ties: Ties = "mean",
) -> RetrievalReport:
    """`recall_at_k` of the inner products of two sets of vectors, whose whole matrix is never made."""
    texts, images = np.asarray(texts_TD), np.asarray(images_ID)
    if texts.ndim != 2 or images.ndim != 2 or texts.shape[1:] != images.shape[1:]:
        raise BadInput(f"vectors of shape {texts.shape} and {images.shape}; expected [texts, D] and [images, D]")
    for name, vectors in (("texts", texts), ("images", images)):
        if not np.isfinite(vectors).all():
            raise BadInput(f"{name}: {int((~np.isfinite(vectors)).any(axis=1).sum())} vectors are not finite")
    image = _indices(image_of_text_T, len(texts), len(images))
    described = np.unique(image)

    def direction(queries_QD: NDArray[Any], group_Q: Groups, candidates_CD: NDArray[Any], group_C: Groups) -> Ranks:
        blocks = (slice(start, start + _BLOCK) for start in range(0, len(queries_QD), _BLOCK))
        parts = [ranks(queries_QD[block] @ candidates_CD.T, group_Q[block], group_C, ties) for block in blocks]
        return _summary(np.concatenate(parts), ks)

    return RetrievalReport(
        direction(texts, image, images, np.arange(len(images))), direction(images[described], described, texts, image)
    )


def ranks(similarity_QC: NDArray[Any], group_Q: Groups, group_C: Groups, ties: Ties) -> Floats:
    """Rank of the best candidate of each query's group; the group's other candidates stand in nobody's way.

    Legend as above; `group_Q` and `group_C` number the group each query and candidate belongs to.
    """
    if ties not in get_args(Ties):
        raise unknown("ties", ties, get_args(Ties))
    columns_QR, real_QR = _right(group_Q, group_C)
    best, worst = [], []
    for start in range(0, len(group_Q), _BLOCK):
        part = slice(start, start + _BLOCK)
        rows, real = similarity_QC[part], real_QR[part]
        lowest = np.iinfo(rows.dtype).min if rows.dtype.kind in "iu" else -np.inf
        own = np.where(real, np.take_along_axis(rows, columns_QR[part], axis=1), lowest)
        top = own.max(axis=1, keepdims=True)
        # No candidate of the group is above its best; those equal to it are not in the way.
        best.append(1 + np.count_nonzero(rows > top, axis=1))
        worst.append(1 + np.count_nonzero(rows >= top, axis=1) - np.count_nonzero(real & (own == top), axis=1))
    optimistic, pessimistic = np.concatenate(best).astype(np.float64), np.concatenate(worst).astype(np.float64)
    return {"mean": (optimistic + pessimistic) / 2, "optimistic": optimistic, "pessimistic": pessimistic}[ties]


def _right(group_Q: Groups, group_C: Groups) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The candidates of each query's group `[Q, R]`, as many as the largest group has, and which of them are real."""
    order = np.argsort(group_C, kind="stable")
    first = np.searchsorted(group_C[order], group_Q, side="left")
    count = np.searchsorted(group_C[order], group_Q, side="right") - first
    if len(count) and not count.min():
        raise BadInput(f"{int((count == 0).sum())} queries have no right candidate")
    place = np.arange(int(count.max(initial=1)))
    real = place < count[:, None]
    return order[np.where(real, first[:, None] + place, first[:, None])], real


def _summary(ranks: Floats, ks: Sequence[int]) -> Ranks:
    recall = {k: float((ranks < k + 1).mean()) for k in ks}
    return Ranks(ranks, recall, float(np.median(ranks)), float(ranks.mean()), float((1 / ranks).mean()))


@dataclass(frozen=True)
class _Groups:
    """One query's candidates in order of similarity, equal ones as a group: how many, and how many of them right."""

    sizes: NDArray[np.intp]
    right: NDArray[np.intp]


def _grouped(similarity_QC: NDArray[Any], group_Q: NDArray[np.intp], group_C: NDArray[np.intp]) -> Iterator[_Groups]:
    for row, group in zip(similarity_QC, group_Q, strict=True):
        _, inverse, sizes = np.unique(row, return_inverse=True, return_counts=True)
        right = np.bincount(inverse[group_C == group], minlength=len(sizes))
        yield _Groups(sizes[::-1], right[::-1])


def _both(similarity_TI: ArrayLike, image_of_text_T: ArrayLike, value: Any, ties: Ties) -> BothWays:
    if ties not in get_args(Ties):
        raise unknown("ties", ties, get_args(Ties))
    similarity, image = _checked(similarity_TI, image_of_text_T)
    described = np.unique(image)
    texts = [value(g) for g in _grouped(similarity, image, np.arange(similarity.shape[1]))]
    images = [value(g) for g in _grouped(similarity.T[described], described, image)]
    return BothWays(float(np.mean(texts)), float(np.mean(images)))


def _average_precision(groups: _Groups, ties: Ties) -> float:
    total, seen, found = 0.0, 0, 0
    for size, right in zip(groups.sizes.tolist(), groups.right.tolist(), strict=True):
        if right:
            if ties == "optimistic":
                total += sum((found + i) / (seen + i) for i in range(1, right + 1))
            elif ties == "pessimistic":
                total += right * (found + right) / (seen + size)
            else:  # the item at place i is right with chance right / size, and then so are as many before it
                others = (right - 1) / (size - 1) if size > 1 else 0.0
                place = np.arange(1, size + 1)
                total += right / size * float(((found + 1 + (place - 1) * others) / (seen + place)).sum())
        seen, found = seen + size, found + right
    return total / found


def _ndcg(groups: _Groups, k: int | None, ties: Ties) -> float:
    count = int(groups.sizes.sum())
    discount = 1 / np.log2(np.arange(2, count + 2))
    discount[count if k is None else k :] = 0
    reached = np.concatenate([[0.0], np.cumsum(discount)])
    end = np.cumsum(groups.sizes)
    start = end - groups.sizes
    if ties == "optimistic":
        gained = reached[start + groups.right] - reached[start]
    elif ties == "pessimistic":
        gained = reached[end] - reached[end - groups.right]
    else:
        gained = (reached[end] - reached[start]) * groups.right / groups.sizes
    return float(gained.sum() / reached[int(groups.right.sum())])
