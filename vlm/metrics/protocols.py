"""How a benchmark compares a predicted answer with the annotators': one table, from a protocol's name to its rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlm.errors import BadInput
from vlm.metrics.chart import relaxed_accuracy
from vlm.metrics.pope import pope_answer
from vlm.metrics.vqa import anls, exact_match, textvqa_accuracy, vizwiz_accuracy, vqa_accuracy
from vlm.registry import Registry

Rule = Callable[[str, Sequence[str]], float]
"""(prediction, answers) -> how right the prediction is, 0 to 1. Raises `BadInput` where there are no answers."""

PROTOCOLS: Registry[Rule] = Registry("protocol")


@PROTOCOLS.register("vqav2")
def vqav2(prediction: str, answers: Sequence[str]) -> float:
    """`vqaEval.py` of GT-Vision-Lab/VQA on (ten) answers; see `vqa_accuracy`."""
    return vqa_accuracy(prediction, answers)


@PROTOCOLS.register("okvqa")
def okvqa(prediction: str, answers: Sequence[str]) -> float:
    """OK-VQA (Marino et al. 2019) is scored by the code of VQA v2, on its ten answers (five people's, each twice)."""
    return vqa_accuracy(prediction, answers)


@PROTOCOLS.register("vizwiz")
def vizwiz(prediction: str, answers: Sequence[str]) -> float:
    """The VizWiz API: only the prediction is normalised; see `vizwiz_accuracy`. Some harnesses (lmms-eval) normalise
    both sides as EvalAI does: that is `textvqa`.
    """
    return vizwiz_accuracy(prediction, answers)


@PROTOCOLS.register("textvqa")
def textvqa(prediction: str, answers: Sequence[str]) -> float:
    """`TextVQAAccuracyEvaluator` of MMF and the EvalAI server; see `textvqa_accuracy`."""
    return textvqa_accuracy(prediction, answers)


@PROTOCOLS.register("gqa")
def gqa(prediction: str, answers: Sequence[str]) -> float:
    """`eval.py` of GQA (Hudson and Manning 2019): the very same string, or wrong.

    Case, white space and a final period all count, as they do there; `exact` is the lenient comparison. GQA has one
    answer a question; of several, any will do.
    """
    return float(prediction in _given(answers))


@PROTOCOLS.register("exact")
def exact(prediction: str, answers: Sequence[str]) -> float:
    """The same string as one of the answers, but for case and outer white space; see `exact_match`."""
    return exact_match(prediction, _given(answers))


@PROTOCOLS.register("anls")
def anls_(prediction: str, answers: Sequence[str]) -> float:
    """DocVQA, ST-VQA, InfographicVQA: the best answer's normalised Levenshtein similarity; see `anls`."""
    return anls(prediction, _given(answers))


@PROTOCOLS.register("relaxed")
def relaxed(prediction: str, answers: Sequence[str]) -> float:
    """ChartQA: within 5 % of a number, else the same text; see `relaxed_accuracy`. Of several answers the best."""
    return float(any(relaxed_accuracy(prediction, answer) for answer in _given(answers)))


@PROTOCOLS.register("pope")
def pope(prediction: str, answers: Sequence[str]) -> float:
    """POPE: read as yes or no (`pope_answer`), and the right one. F1 and the rest are of all questions: `pope.pope`."""
    return float(pope_answer(prediction) in [answer.strip().lower() for answer in _given(answers)])


TEN_ANSWERS = frozenset(["vqav2", "okvqa", "vizwiz", "textvqa"])
"""Protocols that count matches among ten answers: with fewer than four nothing reaches 1, with one all is 0."""


def _given(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str) or not answers:
        raise BadInput(f"answers are {answers!r}; expected a list of one or more strings")
    return answers
