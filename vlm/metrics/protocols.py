"""How a benchmark compares a predicted answer with the annotators': one table, from a protocol's name to its rule."""

from __future__ import annotations

import re
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


@PROTOCOLS.register("contains")
def contains(prediction: str, answers: Sequence[str]) -> float:
    """OCRBench (Liu et al. 2023): an answer is somewhere in the reply, in any case; a line end counts as a space."""
    said = _one_line(prediction).lower()
    return float(any(_one_line(answer).lower() in said for answer in _given(answers)))


@PROTOCOLS.register("contains_tight")
def contains_tight(prediction: str, answers: Sequence[str]) -> float:
    """OCRBench's formulas (HME100k): as `contains`, but without spaces and with the case as it is."""
    said = _one_line(prediction).replace(" ", "")
    return float(any(_one_line(answer).replace(" ", "") in said for answer in _given(answers)))


@PROTOCOLS.register("parts")
def parts(prediction: str, answers: Sequence[str]) -> float:
    """MM-Vet's references read exactly: `a <AND> b` wants both in the reply, `a <OR> b` one of them."""
    said = _one_line(prediction).lower()

    def found(reference: str) -> bool:
        either = (one.split("<AND>") for one in reference.split("<OR>"))
        return any(all(_one_line(part).lower() in said for part in every) for every in either)

    return float(any(found(answer) for answer in _given(answers)))


@PROTOCOLS.register("yes_no")
def yes_no(prediction: str, answers: Sequence[str]) -> float:
    """HallusionBench, TempCompass: the first yes or no of the reply; the reference says it, or 1 or 0."""
    said = _YES_NO.search(prediction)
    right = {_YES_NO_OF.get(answer.strip().lower(), answer.strip().lower()) for answer in _given(answers)}
    return float(said is not None and said[1].lower() in right)


@PROTOCOLS.register("option")
def option(prediction: str, answers: Sequence[str]) -> float:
    """TempCompass: options stand in the question, and the reply begins with the letter of the right one ("B. left"), or
    is the answer itself."""
    said = prediction.strip()
    letter = _LETTER.match(said)
    for answer in _given(answers):
        own = _LETTER.match(answer.strip())
        if said == answer.strip() or (letter and own and letter[1] == own[1]):
            return 1.0
    return 0.0


@PROTOCOLS.register("number")
def number(prediction: str, answers: Sequence[str]) -> float:
    """MathVista's free answers: the last number of the reply, rounded to as many decimals as the reference has.

    A list ("[1, 2]") or a text has to be in the reply as it is, but for spaces and case.
    """
    numbers = [one.replace(",", "") for one in _NUMBER.findall(prediction)]
    tight = "".join(prediction.split()).lower()
    for answer in _given(answers):
        text = answer.strip()
        if not _NUMBER.fullmatch(text):
            if "".join(text.split()).lower() in tight:
                return 1.0
        elif numbers:
            text = text.replace(",", "")
            decimals = len(text.partition(".")[2])
            if round(float(numbers[-1]), decimals) == round(float(text), decimals):
                return 1.0
    return 0.0


_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_YES_NO_OF = {"1": "yes", "0": "no"}
_LETTER = re.compile(r"\(?([A-Z])(?=[.):]|$)\)?")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)")


def _one_line(text: str) -> str:
    return text.strip().replace("\n", " ")


TEN_ANSWERS = frozenset(["vqav2", "okvqa", "vizwiz", "textvqa"])
"""Protocols that count matches among ten answers: with fewer than four nothing reaches 1, with one all is 0."""


def _given(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str) or not answers:
        raise BadInput(f"answers are {answers!r}; expected a list of one or more strings")
    return answers
