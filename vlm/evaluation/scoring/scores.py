"""Scores of files that any system wrote: captions, answers, similarities. What `vlm score` prints.

Ids are compared as text, so a question may be 7 in one file and "7" in the other. What is wrong with the files is
collected, a line each with counts, and raised as one `BadFiles` before anything is scored; what is odd but has a score
(an empty caption) is scored as the reference does and named in `Scored.warnings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput, unknown
from vlm.evaluation.scoring.files import Problems, answers_of, captions_of, load_all, load_arrays, predictions_of
from vlm.metrics.caption import NotAvailable, Score, bleu, cider, meteor, rouge_l, spice
from vlm.metrics.pope import pope
from vlm.metrics.protocols import PROTOCOLS, TEN_ANSWERS
from vlm.metrics.retrieval import Ties, mean_average_precision, ndcg, recall_at_k
from vlm.metrics.score import at_spaces, tokenized

KS = (1, 5, 10)
TIES: tuple[Ties, ...] = ("mean", "optimistic", "pessimistic")
_LINE_BREAK = re.compile("[\r\v\f\u2028\u2029]")  # what the reference's tokenizer takes for the end of a caption


@dataclass(frozen=True)
class Scored:
    """Figures of one comparison, each item's own, and what a reader must know to trust them."""

    metrics: dict[str, Any]
    per_item: dict[str, Any] = field(default_factory=dict)
    not_available: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def score_captions(
    hypotheses: Path,
    references: Path,
    *,
    with_meteor: bool = False,
    with_spice: bool = False,
    tell: Callable[[str], None] = lambda metric: None,
) -> Scored:
    """`{id: caption}` against `{id: [captions]}`: the COCO caption metrics, on their own scale (CIDEr up to 10).

    METEOR and SPICE start a Java program that takes far longer than all the others, and are computed when asked for.
    `tell` hears the name of each metric before it is computed.
    """
    problems = Problems()
    given, true = load_all(hypotheses, references)
    said = captions_of(given, str(hypotheses), problems)
    wanted = answers_of(true, str(references), problems, "caption", "image_id")
    problems.same_ids(said, wanted, str(hypotheses), str(references), "images")
    problems.check()
    ids = list(wanted)
    refs, hyps = [wanted[i].answers for i in ids], [said[i] for i in ids]
    split_refs, split_hyps = tokenized(refs, hyps)
    texts = [*hyps, *(text for own in refs for text in own)]
    tokens = dict(zip(texts, map(at_spaces, [*split_hyps, *(text for own in split_refs for text in own)]), strict=True))

    tell("BLEU")
    scores: dict[str, Score] = {
        f"Bleu_{n}": s for n, s in enumerate(bleu(split_refs, split_hyps, tokenizer=at_spaces), start=1)
    }
    tell("ROUGE-L and CIDEr")
    scores["ROUGE_L"] = rouge_l(split_refs, split_hyps, tokenizer=at_spaces)
    scores["CIDEr"] = cider(split_refs, split_hyps, tokenizer=at_spaces)
    missing = {}
    for name, metric, asked in (("METEOR", meteor, with_meteor), ("SPICE", spice, with_spice)):
        if not asked:
            missing[name] = f"not asked for (--{name.lower()}; it runs on Java)"
            continue
        tell(name)
        found = metric(split_refs, split_hyps, tokenizer=at_spaces)
        if isinstance(found, NotAvailable):
            missing[name] = found.reason
        else:
            scores[name] = found
    return Scored(
        {name: score.value for name, score in scores.items()},
        {item: {name: score.per_item[n] for name, score in scores.items()} for n, item in enumerate(ids)},
        missing,
        _caption_warnings(ids, hyps, refs, tokens),
    )


def score_answers(predictions: Path, answers: Path, protocol: str) -> Scored:
    """`{question_id: answer}` against annotators' answers by a protocol of `PROTOCOLS`: accuracy in percent.

    `by_type` has the accuracy of each answer type and each question type that the annotations name; a question type
    called as an answer type is (OK-VQA has "other" twice) is marked. POPE has its other figures as well.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    problems = Problems()
    given, true = load_all(predictions, answers)
    said = predictions_of(given, str(predictions), problems)
    asked = answers_of(true, str(answers), problems, "answer", "question_id")
    problems.same_ids(said, asked, str(predictions), str(answers), "questions")
    problems.check()
    rule = PROTOCOLS[protocol]
    percent = {i: 100 * rule(said[i], question.answers) for i, question in asked.items()}
    by_type: dict[str, list[float]] = {}
    kinds = {question.answer_type for question in asked.values()} - {None}
    for i, question in asked.items():
        name = question.question_type
        for key in (question.answer_type, f"{name} (question type)" if name in kinds else name):
            if key is not None:
                by_type.setdefault(key, []).append(percent[i])
    metrics: dict[str, Any] = {"accuracy": _mean(percent.values())}
    if protocol == "pope":
        try:
            whole = pope([said[i] for i in asked], [q.answers[0].strip().lower() for q in asked.values()])
        except BadInput as error:
            raise BadInput(f"{answers}: {error}") from None
        metrics |= {k: 100 * getattr(whole, k) for k in ("precision", "recall", "f1", "yes_ratio")}
    metrics["by_type"] = {key: _mean(values) for key, values in sorted(by_type.items())}
    warnings = _empty([(i, said[i]) for i in asked], "predictions")
    if protocol in TEN_ANSWERS:
        few = [i for i, question in asked.items() if len(question.answers) != 10]
        warnings += _some(few, len(asked), "questions do not have the ten answers that this accuracy is defined for")
    return Scored(metrics, percent, warnings=warnings)


def score_retrieval(similarity: Path) -> Scored:
    """`sim` [texts, images] and `txt2img` [texts] of an .npz: ranks, recalls, mAP and nDCG both ways, ties by name.

    Recalls are shares of the queries; `both` has their mean over both ways and all k.
    """
    arrays = load_arrays(similarity, ("sim", "txt2img"))
    sim, image = arrays["sim"], arrays["txt2img"]
    if sim.dtype.kind not in "iuf":
        raise BadInput(f"{similarity}: sim is {sim.dtype}; expected numbers")
    try:
        reports = {ties: recall_at_k(sim, image, KS, ties=ties) for ties in TIES}
        precision = {ties: mean_average_precision(sim, image, ties=ties) for ties in TIES}
        gain = {ties: ndcg(sim, image, KS[-1], ties=ties) for ties in TIES}
    except BadInput as error:
        raise BadInput(f"{similarity}: {error}") from None
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for way, attribute in (("t2i", "text_to_image"), ("i2t", "image_to_text")):
        ranks = {ties: getattr(report, attribute) for ties, report in reports.items()}
        metrics[way] = {f"R@{k}": {t: r.recall[k] for t, r in ranks.items()} for k in KS}
        metrics[way]["MedR"] = {t: r.median_rank for t, r in ranks.items()}
        metrics[way]["MeanR"] = {t: r.mean_rank for t, r in ranks.items()}
        metrics[way]["mAP"] = {t: getattr(value, attribute) for t, value in precision.items()}
        metrics[way][f"nDCG@{KS[-1]}"] = {t: getattr(value, attribute) for t, value in gain.items()}
    metrics["both"] = {"mean R": {t: report.mean_recall for t, report in reports.items()}}
    alone = sim.shape[1] - len(np.unique(image))
    distractors = [f"{alone} of {sim.shape[1]} images have no text: candidates for t2i, no queries of i2t"]
    one = ["there is one image: whatever the similarities, every text finds it and it finds its text"]
    return Scored(metrics, warnings=(distractors if alone else []) + (one if sim.shape[1] == 1 else []))


def _caption_warnings(
    ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokens: Mapping[str, list[str]]
) -> list[str]:
    hyps = list(zip(ids, hypotheses, strict=True))
    refs = [(i, text) for i, texts in zip(ids, references, strict=True) for text in texts]
    found = []
    if len(ids) == 1:
        found.append("there is one image: CIDEr is 0, as no n-gram is rarer than another")
    for pairs, name in ((hyps, "hypotheses"), (refs, "references")):
        found += _empty(pairs, name)
        wordless = [i for i, text in pairs if text.strip() and not tokens[text]]
        found += _some(wordless, len(pairs), f"{name} have no words once tokenised")
        broken = [i for i, text in pairs if _LINE_BREAK.search(text)]
        found += _some(broken, len(pairs), f"{name} hold a line break, which the reference takes for a new caption; "
                       "here it is a blank")  # fmt: skip
    return found


def _empty(pairs: Sequence[tuple[str, str]], name: str) -> list[str]:
    return _some([i for i, text in pairs if not text.strip()], len(pairs), f"{name} are empty and scored as such")


def _some(ids: Sequence[str], count: int, what: str) -> list[str]:
    return [f"{len(ids)} of {count} {what} (first: {ids[0]!r})"] if ids else []


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
