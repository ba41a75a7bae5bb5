"""Answers to questions about a picture against what people answered: VQA accuracy, exact match, ANLS.

Each takes strings and gives a number from 0 to 1 for one question; a benchmark's score is the mean over its questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from vlm.errors import BadInput, unknown

_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = frozenset(["a", "an", "the"])
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")

# The official table maps a contraction with one of its apostrophes forgotten to the contraction.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# Its one entry the other way round, and five that never apply ("Im", "Ive", "Id've": words are lower-case by then).
_CONTRACTED = {"somebody'd": "somebodyd"} | {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTIONS.split() for i, c in enumerate(word) if c == "'"
}


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA v2 accuracy of one prediction, equal to the official `vqaEval.py` (GT-Vision-Lab/VQA).

    The mean, over leaving out each of the (ten) answers in turn, of min(1, matches among the others / 3). Prediction
    and answers are normalised with `vqa_normalise` only if the answers are not unanimous; else they are compared as
    they are, but for line breaks, tabs and outer spaces.

    Two answers of the official data are told apart by their id; here each element of `answers` is one.
    """
    if isinstance(answers, str) or not answers:
        raise BadInput(f"answers are {answers!r}; expected a list of one or more strings")
    prediction, given = _one_line(prediction), [_one_line(a) for a in answers]
    if len(set(given)) > 1:
        prediction, given = vqa_normalise(prediction), [vqa_normalise(a) for a in given]
    return _leave_one_out([answer == prediction for answer in given])


def vqa_normalise(answer: str) -> str:
    """The official normalisation: punctuation, then lower case, number words as digits, no articles, contractions.

    Its quirks are kept: a mark is deleted where any one of its kind touches a space (or the text has a comma between
    digits), and becomes a space elsewhere; a period goes unless a digit follows, whatever is before it (the regular
    expression misspells its look-behind); only the first 32 periods go (a flag is passed as a count).
    """
    return _words(_punctuation(_one_line(answer)))


def evalai_normalise(answer: str) -> str:
    """The EvalAI normalisation (TextVQA, ST-VQA, VizWiz; `EvalAIAnswerProcessor` of MMF).

    As `vqa_normalise`, but lower case comes first, commas and question marks are deleted, and `'s` is split off.
    """
    answer = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _words(_punctuation(_one_line(answer)))


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """TextVQA accuracy (`TextVQAAccuracyEvaluator` of MMF): as `vqa_accuracy`, but always normalised, and as EvalAI."""
    if isinstance(answers, str) or not answers:
        raise BadInput(f"answers are {answers!r}; expected a list of one or more strings")
    wanted = evalai_normalise(prediction)
    return _leave_one_out([evalai_normalise(answer) == wanted for answer in answers])


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VizWiz accuracy (Gurari et al. 2018), as the evaluation in the VizWiz API has it.

    As `vqa_accuracy`, but the prediction is always normalised and the answers never are: they count as the crowd wrote
    them, so an answer with a capital or a full stop is matched by nothing. One accident is not copied: the official
    table of contractions has typographic apostrophes, so there "dont" matches no answer at all; here it is "don't".
    """
    if isinstance(answers, str) or not answers:
        raise BadInput(f"answers are {answers!r}; expected a list of one or more strings")
    wanted = vqa_normalise(prediction)
    return _leave_one_out([answer == wanted for answer in answers])


def exact_match(
    prediction: str, answers: str | Sequence[str], *, normalise: Callable[[str], str] | None = None
) -> float:
    """1 if the prediction equals an answer, else 0. By default case and outer white space do not count."""
    fold = normalise or (lambda text: text.strip().lower())
    expected = [answers] if isinstance(answers, str) else answers
    return float(fold(prediction) in [fold(answer) for answer in expected])


def anls(
    prediction: str,
    answers: str | Sequence[str],
    *,
    threshold: float = 0.5,
    implementation: Literal["lmms_eval", "mmf"] = "lmms_eval",
) -> float:
    """Average normalised Levenshtein similarity of one prediction (Biten et al. 2019, equation 1): the best answer's.

    1 - distance / length of the longer; below `threshold` it counts as 0, exactly `threshold` is kept. Case and outer
    white space do not count for the distance. What the paper leaves open is decided by name:

    - `"lmms_eval"` (and VLMEvalKit): repeated white space does not count either, but the lengths are taken before any
      is removed, and of capitals ("ß" is two), so a trailing blank makes a wrong answer look a little less wrong.
    - `"mmf"` (`STVQAANLSEvaluator`): only outer white space is removed, and before the lengths are taken. It fails
      where prediction and answer are both empty; here that is 1, as in the others.
    """
    if implementation not in ("lmms_eval", "mmf"):
        raise unknown("implementation", implementation, ("lmms_eval", "mmf"))
    expected = [answers] if isinstance(answers, str) else answers
    if not expected:
        raise BadInput("no answers to compare with; expected at least one")
    best = 0.0
    for answer in expected:
        if implementation == "mmf":
            a, b = answer.lower().strip(), prediction.lower().strip()
            longest = max(len(a), len(b))
        else:
            a, b = _squeezed(answer), _squeezed(prediction)
            longest = max(len(answer.upper()), len(prediction.upper()))
        best = max(best, 1 - levenshtein(a, b) / longest if longest else 1.0)
    return best if best >= threshold else 0.0


def levenshtein(a: str, b: str) -> int:
    """The least number of characters to insert, delete or replace to make one string the other."""
    if not a:
        return len(b)
    # One column of the table is two integers whose bits say where it goes up or down (Myers 1999; Hyyrö 2001): long
    # strings take seconds instead of hours.
    places: dict[str, int] = {}
    for i, x in enumerate(a):
        places[x] = places.get(x, 0) | 1 << i
    every, last = (1 << len(a)) - 1, 1 << len(a) - 1
    up, down, distance = every, 0, len(a)
    for y in b:
        same = places.get(y, 0)
        level = (((same & up) + up) ^ up) | same | down
        higher, lower = down | ~(level | up) & every, up & level
        distance += bool(higher & last) - bool(lower & last)
        higher = higher << 1 | 1
        up, down = (lower << 1 | ~(level | higher)) & every, higher & level
    return distance


def _leave_one_out(matches: list[bool]) -> float:
    """The mean, over leaving out each answer, of min(1, matches among the others / 3)."""
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _squeezed(text: str) -> str:
    return " ".join(text.lower().split())


def _punctuation(text: str) -> str:
    deleted = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        touches_space = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if deleted or touches_space else " ")
    return _PERIOD.sub("", out, count=32)


def _words(text: str) -> str:
    numbered = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTED.get(word, word) for word in numbered if word not in _ARTICLES)
