"""Caption metrics against pycocoevalcap 1.2."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.caption import Score, bleu, cider, clip_score, rouge_l, tokenize

EDGES = ["single_image", "two_identical_images", "variable_refs", "perfect", "all_empty_hyp", "synonyms_stems"]


def scores(references: list[list[str]], hypotheses: list[str]) -> dict[str, Score]:
    named = {f"Bleu_{n}": score for n, score in enumerate(bleu(references, hypotheses), start=1)}
    return named | {"ROUGE_L": rouge_l(references, hypotheses), "CIDEr": cider(references, hypotheses)}


def check(refs: dict[str, list[str]], hyps: dict[str, str], corpus: dict[str, float], per_image: Any) -> None:
    for name, score in scores([refs[k] for k in refs], [hyps[k] for k in refs]).items():
        assert score.value == pytest.approx(corpus[name], abs=1e-9), name
        assert score.per_item == pytest.approx([per_image[k][name] for k in refs], abs=1e-9), name


@pytest.mark.parametrize("name", EDGES)
def test_equals_the_reference_on_tiny_corpora(golden: Path, name: str) -> None:
    case = json.loads((golden / "metrics/captions.json").read_text())[name]
    check(case["refs"], case["hyps"], case["corpus"], case["per_image"])


def test_equals_the_reference_on_five_hundred_images(shared: Path) -> None:
    folder = shared / "golden/metrics"
    refs = json.loads((folder / "caption_refs.json").read_text())
    hyps = json.loads((folder / "caption_hyps_clean.json").read_text())
    expected = json.loads((folder / "caption_scores_clean.json").read_text())
    tokens = json.loads((folder / "caption_tokens_clean.json").read_text())
    assert {k: [" ".join(tokenize(c)) for c in v] for k, v in refs.items()} == tokens["refs"]
    assert {k: " ".join(tokenize(c)) for k, c in hyps.items()} == tokens["clean"]
    check(refs, hyps, expected["corpus"], expected["per_image"])


def test_a_line_break_in_one_caption_changes_no_other() -> None:
    references = [["a dog\ron grass"], ["a man rides a horse"], ["two kids play"]]
    whole = scores(references, ["a dog on grass", "a man rides a horse", "two kids play"])
    assert whole["Bleu_1"].per_item == pytest.approx([1, 1, 1])
    assert whole["CIDEr"].per_item[1] == pytest.approx(10)


def test_a_token_with_a_space_inside_is_two_words_for_bleu_and_one_for_rouge() -> None:
    references, hypotheses = [["add 3 1/2 cups"]], ["add 3 1/4 cups"]
    assert bleu(references, hypotheses)[0].value == pytest.approx(3 / 4)
    assert rouge_l(references, hypotheses).value == pytest.approx(2 / 3)


def test_takes_another_tokenizer() -> None:
    assert rouge_l([["A-b c"]], ["a b C"], tokenizer=str.split).value == 0
    assert rouge_l([["A-b c"]], ["a b C"], tokenizer=lambda s: s.lower().replace("-", " ").split()).value == 1


def test_an_empty_reference_is_not_an_error() -> None:
    result = scores([["."], ["a dog"]], ["a cat", ""])
    assert all(math.isfinite(x) for score in result.values() for x in [score.value, *score.per_item])


@pytest.mark.parametrize(
    ("references", "hypotheses", "says"),
    [
        ([["a"]], ["a", "b"], "2 hypotheses for 1"),
        ([], [], "no captions"),
        ([["a"], []], ["a", "b"], "item 1 has no references"),
        (["a dog"], ["a dog"], "one string"),
    ],
)
@pytest.mark.parametrize("metric", [bleu, rouge_l, cider])
def test_says_what_is_wrong(metric: Any, references: Any, hypotheses: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        metric(references, hypotheses)


def test_clip_score_is_a_clipped_cosine() -> None:
    images, texts = np.array([[3.0, 0], [1, 0], [0, 0]]), np.array([[1.0, 1], [-1, 0], [1, 0]])
    assert clip_score(images, texts).per_item == pytest.approx([2.5 / math.sqrt(2), 0, 0])
    with pytest.raises(BadInput, match="shape"):
        clip_score(images, texts[:2])
