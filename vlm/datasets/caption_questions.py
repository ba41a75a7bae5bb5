"""Questions with short answers made from captions by rule (the idea of COCO-QA, arXiv:1505.02074, section 3.2).

They teach the form of an answer on real photographs for which only captions exist; they are no benchmark.
"""

from __future__ import annotations

import random
import re

THINGS = (
    "dog man woman boy girl child baby ball car bike bicycle horse boat cat bird skateboard surfboard "
    "snowboard tree snow water grass beach mountain rock street bench hat shirt fence football soccer pool "
    "ocean sand kite guitar "
).split()
PEOPLE = {"man": "man", "men": "men", "woman": "woman", "women": "women", "boy": "boy", "boys": "boys",
          "girl": "girl", "girls": "girls", "child": "child", "children": "children", "people": "people",
          "person": "person", "dog": "dog", "dogs": "dogs"}  # fmt: skip
# A caption that says "puppy" must not teach that there is no dog. Followed on: a sea is an ocean is water.
IMPLIES = {
    "puppy": "dog", "puppies": "dog", "greyhound": "dog", "men": "man", "guy": "man", "women": "woman", "lady": "woman",
    "ladies": "woman", "kid": "child", "kids": "child", "children": "child", "toddler": "child", "boys": "boy",
    "girls": "girl", "infant": "baby", "bicycle": "bike", "bicyclist": "bike", "biker": "bike", "cyclist": "bike",
    "skateboarder": "skateboard", "surfer": "surfboard", "snowboarder": "snowboard", "sea": "ocean", "lake": "water",
    "river": "water", "ocean": "water", "pool": "water", "snowy": "snow", "grassy": "grass", "lawn": "grass",
    "rocks": "rock", "rocky": "rock", "mountains": "mountain", "hill": "mountain", "trees": "tree", "road": "street",
    "sandy": "sand", "beach": "sand", "cap": "hat", "helmet": "hat", "soccer": "ball", "football": "ball",
    "basketball": "ball", "tennis": "ball", "swimming": "water", "skier": "snow", "cars": "car", "dogs": "dog",
    "horses": "horse", "birds": "bird", "cats": "cat", "boats": "boat", "benches": "bench", "bikes": "bike",
    "boy": "child", "girl": "child", "baby": "child", "babies": "baby", "bike": "bicycle",
}  # fmt: skip
# What a caption leaves open is neither claimed nor denied: a child is a boy or a girl, soccer is football to some.
_ANYONE = "man woman boy girl child"
MAYBE = {
    "child": "boy girl", "person": _ANYONE, "people": _ANYONE, "persons": _ANYONE, "someone": _ANYONE, "group": _ANYONE,
    "crowd": _ANYONE, "team": _ANYONE, "family": _ANYONE, "couple": _ANYONE, "player": _ANYONE, "players": _ANYONE,
    "rider": _ANYONE, "riders": _ANYONE, "adult": "man woman", "adults": "man woman", "soccer": "football",
    "football": "soccer",
}  # fmt: skip
COLORS = ("black white red blue green yellow brown orange pink purple gray grey tan blond ").split()
COLORED = (
    "dog shirt jacket dress hat coat ball bike car horse shorts helmet hair uniform pants sweater swimsuit "
).split()
NUMBERS = {"two": "two", "three": "three", "four": "four", "five": "five"}
PLACES = (
    "on the beach|in the snow|in the water|on the grass|in the grass|on the street|in a pool|in a field|in a p"
    "ark|on a rock|on a bench|on a couch|in the woods|on the sidewalk|in the ocean|on a field|in a river"
).split("|")

_COLOR = re.compile(rf"(?<!and )\b({'|'.join(COLORS)}) ({'|'.join(COLORED)})\b")
_COUNT = re.compile(rf"\b({'|'.join(NUMBERS)}) (?:\w+ )?(dogs|men|women|boys|girls|children|people|kids)\b")
_PLACE = re.compile(rf"\b({'|'.join(PLACES)})\b")
_ACTION = re.compile(rf"\b({'|'.join(PEOPLE)}) (?:is |are )?(\w{{2,}}ing)\b")
_PLURAL = re.compile(r"(?<=ch)es$|(?<=sh)es$|(?<=ss)es$|s$")
_NOT_ACTIONS = {"wearing", "during", "something", "clothing", "having", "being", "building", "swing", "string"}


def questions(captions: tuple[str, ...], rng: random.Random, limit: int) -> list[tuple[str, str]]:
    """At most `limit` (question, answer) pairs that the captions of one picture support.

    A thing is denied only where no caption names or implies it; at most one question of a kind and thing is kept.
    """
    # A mark between captions, so that no phrase is read across two of them.
    text = " | ".join(caption.lower() for caption in captions)
    named = _named(re.findall(r"[a-z]+", text))
    open_to_doubt = {thing for word in named for thing in MAYBE.get(word, "").split()}
    found: dict[str, str] = {}
    for color, thing in _COLOR.findall(text):
        be = "are" if thing in ("shorts", "pants") else "is"
        found.setdefault(f"What color {be} the {thing}?", "gray" if color == "grey" else color)
    for number, things in _COUNT.findall(text):
        found.setdefault(f"How many {things} are there?", NUMBERS[number])
    for person, action in _ACTION.findall(text):
        if action not in _NOT_ACTIONS:
            be = "are" if person in ("men", "women", "boys", "girls", "children", "people", "dogs") else "is"
            found.setdefault(f"What {be} the {person} doing?", action)
    for place in _PLACE.findall(text)[:1]:
        found["Where is this?"] = place
    present = [thing for thing in THINGS if thing in named]
    absent = [thing for thing in THINGS if thing not in named and thing not in open_to_doubt]
    yes_no = [(thing, "yes") for thing in rng.sample(present, min(1, len(present)))]
    yes_no += [(thing, "no") for thing in rng.sample(absent, min(1, len(absent)))]
    for thing, answer in yes_no:
        article = "" if thing in ("snow", "water", "grass", "sand", "football", "soccer") else "a "
        found[f"Is there {'an ' if thing[0] in 'aeiou' and article else article}{thing} in the picture?"] = answer
    pairs = list(found.items())
    rng.shuffle(pairs)
    return pairs[:limit]


def _named(words: list[str]) -> set[str]:
    """The words, their singulars, and all they imply."""
    named: set[str] = set()
    while words:
        named.update(words)
        words = [other for word in words for other in (_PLURAL.sub("", word), IMPLIES.get(word, word))]
        words = [word for word in words if word not in named]
    return named
