"""Captioning: one greedy caption a picture or clip against its references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from vlm.datasets.examples import Example
from vlm.evaluation.figures import around, clusters_of, figure, mean_figure, resampled_figure
from vlm.evaluation.requests import Turn
from vlm.evaluation.results import Figure, Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.metrics.bleu import bleu_counts, bleu_of
from vlm.metrics.caption import cider, rouge_l
from vlm.metrics.java import NotAvailable, meteor, spice
from vlm.metrics.score import at_spaces, tokenized
from vlm.metrics.statistics import interval_of_mean

CIDER = (0.0, 10.0)
"""What CIDEr can be; all other metrics of captions are fractions."""


def run(job: Job) -> Outcome:
    """CIDEr also with every caption scored at another picture: what the model says without looking.

    The interval of CIDEr takes the document frequencies as given.
    """

    def answered(example: Example) -> Turn:
        return Turn(example, job.prompt or "", example.captions[0])

    requests = [job.request(example, job.prompt, answered) for example in job.examples]
    captions = job.model.answers(requests, job.progress)
    references = [list(example.captions) for example in job.examples]
    wanted, said = tokenized(references, captions)
    ciders, rouges = cider(wanted, said, tokenizer=at_spaces), rouge_l(wanted, said, tokenizer=at_spaces)
    counts = bleu_counts(wanted, said, tokenizer=at_spaces)
    samples = [
        Sample(
            id=example.id,
            inputs=job.inputs(example),
            prompt=job.prompt or "",
            output=caption,
            prediction=caption,
            references=example.captions,
            scores={"CIDEr": ciders.per_item[i], "ROUGE-L": rouges.per_item[i], "BLEU-4": bleu_of(counts[i])[3]},
            cluster=job.cluster(example),
            category=job.category(example),
        )
        for i, (example, caption) in enumerate(zip(job.examples, captions, strict=True))
    ]
    clusters = clusters_of(samples)
    figures = {"CIDEr": mean_figure(samples, "CIDEr", bounds=CIDER, joint=True)}
    if len(captions) > 1:
        shuffled = interval_of_mean(cider(wanted, _deranged(said), tokenizer=at_spaces).per_item, clusters)
        note = "each caption at another picture: what is said without looking"
        figures["CIDEr_pictures_shuffled"] = figure(shuffled, len(captions), bounds=CIDER, note=note)
    for n in (1, 2, 3, 4):
        figures[f"BLEU-{n}"] = resampled_figure(counts, clusters, partial(_bleu, n))
    figures["ROUGE-L"] = mean_figure(samples, "ROUGE-L")
    unavailable = []
    for name, metric in (("METEOR", meteor), ("SPICE", spice)):
        score = metric(references, captions)
        if isinstance(score, NotAvailable):
            unavailable.append(f"{name} {score}")
        else:
            # METEOR's corpus value is no mean of its items, but varies as their mean does.
            spread = interval_of_mean(score.per_item, clusters)
            figures[name] = figure(around(score.value, spread), len(captions))
    notes = [*unavailable, f"{len(set(captions))} different captions for {len(captions)} pictures"]
    if len(captions) == 1:
        notes.append("CIDEr of one picture is 0: its weights come from the other pictures")
    return Outcome(samples, "CIDEr", figures, _by_category(samples), tuple(notes))


def _by_category(samples: Sequence[Sample]) -> dict[str, dict[str, Figure]]:
    """CIDEr of each category by itself: how rare a word is is counted among its own references."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.category is not None:
            groups.setdefault(sample.category, []).append(sample)
    found = {}
    for name, members in sorted(groups.items()):
        alone = cider([list(s.references) for s in members], [str(s.prediction) for s in members])
        spread = interval_of_mean(alone.per_item, clusters_of(members))
        found[name] = {"CIDEr": figure(spread, len(members), bounds=CIDER)}
    return found


def _bleu(n: int, rows_NS: np.ndarray) -> float:
    return bleu_of(rows_NS.sum(axis=0))[n - 1]


def _deranged(captions: Sequence[str]) -> list[str]:
    """Every caption at another picture, the same way each time."""
    order = np.random.default_rng(0).permutation(len(captions))
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)
    return [captions[i] for i in moved]
