"""Run benchmarks: the heads as users call them, over a data set's split, scored by the reference's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vlm.api import Model, load
from vlm.datasets.examples import Example, data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard, load_card
from vlm.heads.media import Media, open_media
from vlm.metrics.caption import bleu, cider, rouge_l
from vlm.metrics.retrieval import recall_at_k
from vlm.metrics.vqa import exact_match

Figures = dict[str, Any]
Report = Callable[[str, int, int], None]
"""Told of a benchmark's name, examples done and examples in all."""

CHUNK = 32


def evaluate(
    model: str | Model,
    tasks: Sequence[str],
    data: str | None = None,
    limit: int | None = None,
    report: Report | None = None,
) -> list[Figures]:
    """The figures of each benchmark, in order; recalls and accuracies in percent, caption metrics on their own scale.

    `data` is the folder of data sets (`$VLM_DATA` by default); `limit` takes the first examples only, and is named
    in the result. All cards and data are checked before the model is loaded. Raises `BadInput`.
    """
    work = []
    for task in tasks:
        card = load_card(task)
        examples = load_dataset(card.dataset).read(data_folder(data), card.split)[:limit]
        if not examples:
            raise BadInput(f"benchmark {card.name}: no examples in split {card.split!r}, limit {limit}")
        work.append((card, examples))
    loaded = load(model) if isinstance(model, str) else model
    results = []
    for card, examples in work:

        def progress(done: int, card: BenchmarkCard = card, total: int = len(examples)) -> None:
            if report is not None:
                report(card.name, done, total)

        figures = _KINDS[card.kind](loaded, card, examples, progress)
        results.append({"task": card.name, "model": loaded.name, "examples": len(examples), **figures})
    return results


def _retrieval(model: Model, card: BenchmarkCard, examples: list[Example], progress: Callable[[int], None]) -> Figures:
    """Every caption against every picture (or clip), both ways; a picture found by any of its captions counts."""
    vectors = []
    for start, media in _media(examples):
        vectors.append(model.embedder.embed_media(media))
        progress(start + len(media))
    captions = [(row, caption) for row, example in enumerate(examples) for caption in example.captions]
    texts = model.embed_texts([caption for _, caption in captions])
    report = recall_at_k(texts @ np.concatenate(vectors).T, [row for row, _ in captions], (1, 5, 10))
    figures: Figures = {"texts": len(captions)}
    for name, ranks in (("text_to_image", report.text_to_image), ("image_to_text", report.image_to_text)):
        figures |= {f"{name}_R@{k}": round(100 * value, 2) for k, value in ranks.recall.items()}
        figures[f"{name}_median_rank"] = ranks.median_rank
    return figures


def _caption(model: Model, card: BenchmarkCard, examples: list[Example], progress: Callable[[int], None]) -> Figures:
    """Greedy captions; CIDEr also with every caption scored at another picture: what it says without looking."""
    captions: list[str] = []
    for start, media in _media(examples):
        captions += model.captioner.caption(media, max_tokens=card.max_tokens)
        progress(start + len(media))
    references = [list(example.captions) for example in examples]
    scores = bleu(references, captions)
    figures: Figures = {"CIDEr": round(cider(references, captions).value, 4)}
    # A fixed derangement: every caption moves to another picture.
    order = np.random.default_rng(0).permutation(len(captions))
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)
    figures["CIDEr_pictures_shuffled"] = round(cider(references, [captions[i] for i in moved]).value, 4)
    figures |= {"BLEU-1": round(scores[0].value, 4), "BLEU-4": round(scores[3].value, 4)}
    figures["ROUGE-L"] = round(rouge_l(references, captions).value, 4)
    figures["distinct"] = len(set(captions))
    return figures


def _vqa(model: Model, card: BenchmarkCard, examples: list[Example], progress: Callable[[int], None]) -> Figures:
    """Exact match of the answer, upper and lower case and underscores aside."""
    right = 0.0
    for start, media in _media(examples):
        rows = examples[start : start + len(media)]
        answers = model.answerer.answer(media, [row.question or "" for row in rows], max_tokens=card.max_tokens)
        right += sum(exact_match(a, [_plain(r) for r in row.answers]) for a, row in zip(answers, rows, strict=True))
        progress(start + len(media))
    return {"exact_match": round(100 * right / len(examples), 2)}


def _plain(answer: str) -> str:
    return ", ".join(part.strip() for part in answer.replace("_", " ").split(","))


def _media(examples: list[Example]) -> Iterator[tuple[int, list[Media]]]:
    for start in range(0, len(examples), CHUNK):
        yield start, [_open(example) for example in examples[start : start + CHUNK]]


def _open(example: Example) -> Media:
    if example.frames:
        frames = tuple(open_media(frame).frames[0] for frame in example.frames)
        # Frames that come as pictures have no times of their own; their order stands in.
        return Media(frames, tuple(float(i) for i in range(len(frames))), source=str(example.video))
    source = example.image if example.image is not None else example.video
    if source is None:
        raise BadInput("example without a picture or a video")
    return open_media(source)


_KINDS = {"retrieval": _retrieval, "caption": _caption, "vqa": _vqa}
