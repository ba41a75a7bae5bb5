"""A temperature for each kind of question (Guo et al. 2017, section 4.2), kept in transformers' `decision.json`.

N answers, C labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm.errors import BadInput
from vlm.files import atomic_write, read_json
from vlm.heads.decisions.decider import Temperatures

FILE = "decision.json"
KINDS = {"yes_no": "noul", "choice": "choice", "score": "score"}
"""Kinds of questions, and what the file calls them."""
LEAST, MOST = 0.01, 100.0
"""Temperatures that are looked for and taken."""


def read(path: Path) -> Temperatures:
    """The temperatures of a `decision.json`; its other keys are for transformers' own heads and change nothing here.
    Raises `BadInput` for a broken file."""
    given = read_json(path).get("temperature", {})
    if not isinstance(given, Mapping):
        raise BadInput(f"{path}: key temperature: expected an object of numbers, got {type(given).__name__}")
    known = {theirs: ours for ours, theirs in KINDS.items()}
    found = {}
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"{path}: key temperature: expected {', '.join(known)}, got {name!r}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST <= value <= MOST:
            raise BadInput(f"{path}: key temperature.{name}: expected {LEAST:g} to {MOST:g}, got {value!r}")
        found[known[name]] = float(value)
    return Temperatures(found, str(path))


def chosen(path: str | Path | None, folder: Path | None) -> Temperatures:
    """Those of the file that is asked for, else of the one in the model's folder, else none."""
    if path is not None:
        return read(Path(path).expanduser())
    own = None if folder is None else folder / FILE
    return read(own) if own is not None and own.is_file() else Temperatures({})


def write(path: Path, temperatures: Mapping[str, float]) -> None:
    """Into a `decision.json`; what else it holds stays. Raises `BadInput` for a file that is broken."""
    held = {}
    if path.is_file():
        read(path)
        held = read_json(path)
    new = {KINDS[kind]: round(value, 6) for kind, value in temperatures.items()}
    held["temperature"] = {**held.get("temperature", {}), **new}
    atomic_write(path, json.dumps(held, indent=2) + "\n")


def fit(log_probabilities: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    """The temperature of maximum likelihood, for answers with log-probabilities of C labels each and the right label's
    number; the likelihood has one maximum, which is `MOST` where it lies beyond. Raises `BadInput` without answers, and
    where all are right: nothing then says how sure they should be."""
    if not right or len(right) != len(log_probabilities):
        raise BadInput(
            f"{len(log_probabilities)} answers and {len(right)} right labels; expected one each, one or more"
        )
    if all(row[place] == max(row) for row, place in zip(log_probabilities, right, strict=True)):
        raise BadInput(f"all {len(right)} answers are right; expected a wrong one, to tell how sure answers should be")
    from scipy.optimize import minimize_scalar  # takes most of a second

    rows = [np.asarray(row, np.float64) - max(row) for row in log_probabilities]

    def loss(log_temperature: float) -> float:
        beta = math.exp(-log_temperature)
        return sum(
            float(np.log(np.exp(beta * row_C).sum()) - beta * row_C[place])
            for row_C, place in zip(rows, right, strict=True)
        )

    found = minimize_scalar(loss, bounds=(math.log(LEAST), math.log(MOST)), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))
