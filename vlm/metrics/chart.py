"""Answers read off charts and tables: relaxed accuracy."""

from __future__ import annotations


def relaxed_accuracy(prediction: str, target: str, *, tolerance: float = 0.05) -> bool:
    """Whether a prediction is right within 5 % of a number (ChartQA, Masry et al. 2022; Methani et al. 2020).

    A number is compared as a number if both sides are one and the target is not zero; a percentage is its hundredth.
    All else must be equal but for case. Equal to `relaxed_correctness` of pix2struct and lmms-eval, with what follows
    from it: "1,000" is not a number, zero wants the same string, "nan" and "inf" never match, "2015" accepts 1915.
    """
    want, got = _number(target), _number(prediction)
    if got is not None and want:  # not zero; infinities and NaN compare false below
        return abs(got - want) / abs(want) <= tolerance
    return prediction.lower() == target.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
