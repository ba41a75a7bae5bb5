"""Which option of a multiple-choice question a free response names.

Both readers give the letter or None where the response names none; a benchmark decides what None costs: it is wrong, or
as in MMMU a guess (`mmmu_choice(...) or guess(...)`). `options` maps letters to their text, in order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

from vlm.errors import BadInput

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def mmmu_choice(response: str, options: Mapping[str, str]) -> str | None:
    """As MMMU's `parse_multi_choice_response`, except that it guesses at random where this gives None.

    Looks for "(A)", then for a lone "A", then (in responses of more than five words) for an option's text; the option
    named last wins.
    """
    for mark in ",.!?;:'":
        response = response.strip(mark)
    response = f" {response} "
    forms = [{letter: f"({letter})" for letter in options}, {letter: f" {letter} " for letter in options}]
    for form in forms:
        places = {letter: response.rfind(text) for letter, text in form.items() if text in response}
        if places:
            return max(places, key=places.__getitem__)
    lower = response.lower()
    if len(response.split()) > 5:
        places = {letter: lower.rfind(text.lower()) for letter, text in options.items() if text.lower() in lower}
        if places:
            return max(places, key=places.__getitem__)
    return None


def vlmevalkit_choice(response: str, options: Mapping[str, str]) -> str | None:
    """As VLMEvalKit's `can_infer` (exact matching, no judge model); "Z" stands for a refusal.

    A letter counts if it is the only option's letter among the words and one of the last five words; else an option's
    text, if it is the only one that occurs and the response is not longer than twice all options together.
    """
    if "Failed to obtain answer via API" not in response:
        if any(refusal in response for refusal in _REFUSALS):
            return "Z"
        words = re.sub(r"[.()\[\],:;!*#{}]", " ", response).split()
        named = [letter for letter in options if letter in words]
        if len(named) == 1 and words.index(named[0]) > len(words) - 5:
            return named[0]
        if not named and "Z" in words:
            return "Z"
    lower = response.lower()
    if len(lower) > 2 * sum(map(len, options.values())):
        return None
    quoted = [letter for letter, text in options.items() if text.lower() in lower]
    return quoted[0] if len(quoted) == 1 else None


READERS: dict[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "mmmu": mmmu_choice,
    "vlmevalkit": vlmevalkit_choice,
}
"""By the name that a benchmark's card gives."""


def guess(options: Mapping[str, str], seed: str) -> str:
    """A letter at random, always the same for one `seed` (the question's id): MMMU's answer for an unreadable response.

    MMMU draws from one generator for all questions, so its guesses depend on their order and on how many were
    unreadable before; these do not.
    """
    if not options:
        raise BadInput("no options to guess from; expected at least one")
    number = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return list(options)[number % len(options)]
