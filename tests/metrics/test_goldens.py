"""Every key of every reference file is compared here or in the test named here; a new one fails until it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_benchmarks import lmms_eval_error

from vlm.metrics.caption import bleu, cider, ptb_tokenize, rouge_l
from vlm.metrics.chart import relaxed_accuracy
from vlm.metrics.choice import mmmu_choice, vlmevalkit_choice
from vlm.metrics.pope import pope, pope_answer
from vlm.metrics.protocols import PROTOCOLS
from vlm.metrics.retrieval import mean_average_precision, ndcg, recall_at_k
from vlm.metrics.statistics import interval_of_mean
from vlm.metrics.video import moment_retrieval, soda_alignment, temporal_iou
from vlm.metrics.vqa import _punctuation, anls, evalai_normalise, vqa_normalise

EXACT = 1e-9
SINGLE = 2e-7  # references that compute in float32
KS = (1, 5, 10)


@pytest.fixture(scope="module")
def load(shared: Path) -> Callable[[str], Any]:
    return lambda name: json.loads((shared / "golden/metrics" / name).read_text())


def test_no_file_is_left_out(shared: Path) -> None:
    elsewhere = {"README.md", "ptb_tokens_20k.tsv.gz", "retrieval_cases.npz"}  # the second: test_ptb_tokenizer
    here = "caption_refs caption_hyps_clean caption_tokens_clean caption_scores_clean caption_edge vqa_cases"
    here += " vqa_norm_cases retrieval_expected misc_cases video_cases"
    names = {path.name for path in (shared / "golden/metrics").iterdir()}
    assert names == elsewhere | {f"{name}.json" for name in here.split()}


def test_captions(load: Any) -> None:
    """METEOR is in test_java, the corpus of 500 also in test_caption and test_score."""
    edge = load("caption_edge.json")
    hazard = edge.pop("hazard_carriage_return")
    # The reference cuts the caption and gives every later one its predecessor's tokens; here a line break is a blank.
    ours = {i: ptb_tokenize(texts) for i, texts in hazard["input"].items()}
    assert ours == {"a": ["first half"], "b": ["second one"], "c": ["third one"]}
    assert hazard["tokenised"] == {"a": ["first"], "b": ["half"], "c": ["second one"]}

    clean = {"refs": load("caption_refs.json"), "hyps": load("caption_hyps_clean.json")}
    tokens = load("caption_tokens_clean.json")
    assert tokens.keys() == {"refs", "clean"}
    clean |= {"tok_refs": tokens["refs"], "tok_hyps": tokens["clean"]} | load("caption_scores_clean.json")
    assert clean.pop("timings")
    for name, case in (edge | {"clean": clean}).items():
        assert case.keys() == {"refs", "hyps", "corpus", "per_image", "tok_refs", "tok_hyps"}, name
        ids = list(case["refs"])
        refs, hyps = [case["refs"][i] for i in ids], [case["hyps"][i] for i in ids]
        assert [ptb_tokenize(texts) for texts in refs] == [case["tok_refs"][i] for i in ids], name
        assert ptb_tokenize(hyps) == [case["tok_hyps"][i] for i in ids], name
        scores = {f"Bleu_{n}": score for n, score in enumerate(bleu(refs, hyps), start=1)}
        scores |= {"ROUGE_L": rouge_l(refs, hyps), "CIDEr": cider(refs, hyps)}
        assert case["corpus"].keys() == scores.keys() | {"METEOR"}
        for metric, score in scores.items():
            assert score.value == pytest.approx(case["corpus"][metric], abs=EXACT), (name, metric)
            wanted = [case["per_image"][i][metric] for i in ids]
            assert score.per_item == pytest.approx(wanted, abs=EXACT), (name, metric)


def test_questions(load: Any) -> None:
    cases = load("vqa_cases.json")
    assert cases.keys() == {"source", "questions"}
    for q in cases["questions"]:
        answers = [answer["answer"] for answer in q["answers"]]
        assert round(100 * PROTOCOLS["vqav2"](q["prediction"], answers), 2) == q["accuracy_pct"], q
        assert q["accuracy_pct"] == q["accuracy_pct_py3"]
        assert PROTOCOLS["okvqa"](q["prediction"], answers) == PROTOCOLS["vqav2"](q["prediction"], answers)
    for case in load("vqa_norm_cases.json"):
        got = {"in": case["in"], "after_processPunctuation": _punctuation(case["in"])}
        got |= dict.fromkeys(("normalised", "normalised_py3"), vqa_normalise(case["in"]))
        assert got == case


def test_benchmarks(load: Any) -> None:
    misc = load("misc_cases.json")
    for case in misc.pop("anls"):
        got = anls(case["prediction"], case["answers"])
        assert (got, got) == pytest.approx((case["lmms_eval"], case["vlmevalkit"]), abs=EXACT), case
        if case["mmf_stvqa"] is not None:  # it fails where both are empty
            got = anls(case["prediction"], case["answers"], implementation="mmf")
            assert got == pytest.approx(case["mmf_stvqa"], abs=EXACT), case
    for case in misc.pop("relaxed"):
        assert relaxed_accuracy(case["prediction"], case["target"]) is case["correct"], case
    options = misc.pop("mcq_options")
    for case in misc.pop("mcq"):
        assert (mmmu_choice(case["response"], options) or "RANDOM") == case["mmmu"], case
        assert (vlmevalkit_choice(case["response"], options) or False) == case["vlmevalkit_can_infer"], case
    case = misc.pop("pope")
    assert [pope_answer(response) for response in case["predictions"]] == case["parsed"]
    score = pope(case["predictions"], case["labels"])
    got = (score.accuracy, score.precision, score.recall, score.f1, score.yes_ratio)
    assert got == pytest.approx([case[k] for k in ("acc", "precision", "recall", "f1", "yes_ratio")], abs=EXACT)
    rule = [PROTOCOLS["pope"](p, [label]) for p, label in zip(case["predictions"], case["labels"], strict=True)]
    assert sum(rule) / len(rule) == pytest.approx(case["acc"])
    case = misc.pop("stderr")
    assert interval_of_mean(case["scores"]).error == pytest.approx(case["mean_stderr"], abs=EXACT)
    assert lmms_eval_error(case["scores"], case["clusters"]) == pytest.approx(case["clustered_stderr"], abs=EXACT)
    for text, wanted in misc.pop("evalai_normaliser"):
        assert evalai_normalise(text) == wanted
    assert not misc


def test_videos(load: Any) -> None:
    cases = load("video_cases.json")
    for a, b, iou in cases.pop("densevid_iou"):
        assert temporal_iou(a, b) == pytest.approx(iou, abs=EXACT)
    for case in cases.pop("soda_dp"):
        found = soda_alignment(case["scores_gold_by_pred"])
        wanted = [case[key] for key in ("max_score", "precision", "recall")]
        assert (found.score, found.precision, found.recall) == pytest.approx(wanted, abs=EXACT)
        # The reference's pairs need not add up to its own score (see `soda_alignment`); where they do, so do ours.
        scores = np.array(case["scores_gold_by_pred"])
        assert sum(scores[pair] for pair in found.pairs) == pytest.approx(case["max_score"])
        assert case.keys() == {"scores_gold_by_pred", "max_score", "precision", "recall", "pairs"}
    case = cases.pop("qvhighlights")
    true = {truth["qid"]: truth["relevant_windows"] for truth in case["ground_truth"]}
    rows = case["submission"]
    found_moments = moment_retrieval([r["pred_relevant_windows"] for r in rows], [true[r["qid"]] for r in rows])
    precision = {str(t): round(100 * v, 2) for t, v in found_moments.average_precision.items()}
    precision["average"] = round(100 * found_moments.mean_average_precision, 2)
    assert precision == case["mAP"]
    assert {str(t): round(100 * v, 2) for t, v in found_moments.recall_at_1.items()} == case["R1"]
    assert not cases


def retrieval_figures(sim: Any, image: Any, tied: bool) -> dict[str, tuple[float, float, float]]:
    """What each key of the reference file should be: (least, most, tolerance).

    Most references let their sort decide a tie, so with ties they may be anything between the worst and the best case.
    """
    reports = {ties: recall_at_k(sim, image, KS, ties=ties) for ties in ("mean", "optimistic", "pessimistic")}  # type: ignore[arg-type]
    found: dict[str, tuple[float, float, float]] = {}
    sides = [("t2i", "text_to_image", "image", "img", "t2v"), ("i2t", "image_to_text", "text", "txt", "v2t")]
    for way, attribute, bench, blip, clip4clip in sides:
        ranks = {ties: getattr(report, attribute) for ties, report in reports.items()}
        for ties, r in ranks.items():
            named = {f"R@{k}": r.recall[k] for k in KS} | {"MedR": r.median_rank, "MeanR": r.mean_rank}
            named["MRR"] = r.mean_reciprocal_rank
            found |= {f"{way}_{ties}_{name}": (value, value, EXACT) for name, value in named.items()}
        worst, best = ranks["pessimistic"], ranks["optimistic"]
        for k in KS:
            low, high = worst.recall[k], best.recall[k]
            found[f"clipbench_{bench}_retrieval_recall@{k}"] = (low, high, SINGLE)
            found[f"blip_{blip}_r{k}"] = found[f"clip4clip_{clip4clip}_R{k}"] = (100 * low, 100 * high, EXACT)
            found[f"{way}_trec_success_{k}"] = (low, high, EXACT)
            if way == "t2i":  # one right image a text: to find it is to find all
                found[f"{way}_trec_recall_{k}"] = (low, high, EXACT)
        means = [100 * sum(r.recall.values()) / len(KS) for r in (worst, best)]
        found[f"blip_{blip}_r_mean"] = (*means, EXACT)
        found[f"{way}_trec_recip_rank"] = (worst.mean_reciprocal_rank, best.mean_reciprocal_rank, EXACT)
        for name, low, high in (
            ("MR", best.median_rank, worst.median_rank),
            ("MedianR", best.median_rank, worst.median_rank),
            ("MeanR", best.mean_rank, worst.mean_rank),
        ):
            found[f"clip4clip_{clip4clip}_{name}"] = (low, high, EXACT)

        def between(measure: Any, attribute: str = attribute) -> tuple[float, float, float]:
            low = getattr(measure("pessimistic"), attribute)
            return (low, getattr(measure("optimistic"), attribute) if tied else low, EXACT)

        mean_ndcg = {k: getattr(ndcg(sim, image, k), attribute) for k in (10, None)}
        found[f"{way}_sklearn_nDCG@10"] = (mean_ndcg[10], mean_ndcg[10], EXACT)
        found[f"{way}_torchmetrics_nDCG@10"] = (mean_ndcg[10], mean_ndcg[10], SINGLE)
        found[f"{way}_torchmetrics_nDCG"] = (mean_ndcg[None], mean_ndcg[None], SINGLE)
        low, high, _ = between(lambda ties: mean_average_precision(sim, image, ties=ties))
        found[f"{way}_sklearn_mAP"] = (low, low, EXACT)
        found[f"{way}_trec_map"] = (low, high, EXACT)
        cut = between(lambda ties: ndcg(sim, image, 10, ties=ties))
        found[f"{way}_trec_ndcg_cut_10"] = found[f"{way}_sklearn_nDCG@10_ignore_ties"] = cut
    mean_recalls = [100 * reports[ties].mean_recall for ties in ("pessimistic", "optimistic")]
    found["blip_r_mean"] = (*mean_recalls, EXACT)
    if not tied:
        assert all(low == pytest.approx(high, abs=EXACT) for low, high, _ in found.values())
    return found


def test_retrieval(load: Any, shared: Path) -> None:
    arrays = np.load(shared / "golden/metrics/retrieval_cases.npz")
    cases = load("retrieval_expected.json")
    assert {name.split("__")[0] for name in arrays.files} == cases.keys()
    for case, expected in cases.items():
        sim, image = arrays[f"{case}__sim"], arrays[f"{case}__txt2img"]
        figures = retrieval_figures(sim, image, "tied" in case)
        for key in expected.keys() & figures.keys():
            low, high, tolerance = figures[key]
            assert low - tolerance <= expected[key] <= high + tolerance, (case, key, expected[key], low, high)
        left = {key for key in expected.keys() - figures.keys() if not key.endswith("seconds")}
        # Not offered: the share of all right texts that are found, which is not the any-of recall of the papers.
        left -= {f"clipbench_true_text_recall@{k}" for k in KS} | {f"i2t_trec_recall_{k}" for k in KS}
        # torchmetrics leaves out whatever is right with a similarity of 0 or less, and divides by what it kept.
        left -= {f"{way}_torchmetrics_mAP{cut}" for way in ("t2i", "i2t") for cut in ("", "@10")}
        assert left == set(), case
