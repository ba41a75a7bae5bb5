from __future__ import annotations

import random
import re

import pytest

from vlm.datasets.caption_questions import THINGS, questions

PLURALS = {
    "man": "men", "woman": "women", "child": "children", "baby": "babies", "bench": "benches", "beach": "beaches",
    "grass": "grasses",
}  # fmt: skip


def every_question(*captions: str) -> dict[str, set[str]]:
    """Question -> answers, over many draws."""
    found: dict[str, set[str]] = {}
    for seed in range(300):
        for question, answer in questions(captions, random.Random(seed), 9):
            found.setdefault(question, set()).add(answer)
    return found


def denied(found: dict[str, set[str]]) -> set[str]:
    asked = {re.sub(r"^Is there (?:an? )?| in the picture\?$", "", q): a for q, a in found.items() if "Is there" in q}
    return {thing for thing, answers in asked.items() if "no" in answers}


def test_a_named_thing_is_never_denied() -> None:
    """Over many captions made of known things, singular and plural."""
    rng = random.Random(0)
    denials = 0
    for seed in range(1500):
        named = rng.sample(THINGS, rng.randint(1, 6))
        words = [PLURALS.get(thing, thing + "s") if rng.random() < 0.5 else thing for thing in named]
        captions = tuple(
            f"A {rng.choice(['red', 'big', 'wet'])} {word.capitalize()}, seen up close ." for word in words
        )
        pairs = questions(captions, random.Random(seed), 9)
        no = [q for q, a in pairs if a == "no"]
        denials += len(no)
        for question in no:
            for thing in named:
                assert not re.search(rf"\b{thing}\b", question), (captions, question)
    assert denials > 1000  # absent things are still asked about


@pytest.mark.parametrize(
    ("caption", "things"),
    [
        ("A puppy runs .", "dog"),
        ("Two kids climb a hill .", "child mountain boy girl"),
        ("A boy rides his bike .", "child bicycle bike"),
        ("Surfers wait in the sea .", "surfboard ocean water"),
        ("A soccer game in the park .", "ball football"),
        ("A group of people at a lake .", "man woman boy girl child water"),
        ("A cyclist in a helmet .", "bike bicycle hat"),
        ("A toddler on a sandy shore .", "child sand"),
    ],
)
def test_what_a_caption_implies_or_leaves_open_is_not_denied(caption: str, things: str) -> None:
    assert denied(every_question(caption)).isdisjoint(things.split())


def test_answers_are_what_the_captions_say() -> None:
    found = every_question("Two brown dogs are running on the beach .", "A girl is smiling in a grey shirt .")
    expected = {
        "How many dogs are there?": {"two"}, "Where is this?": {"on the beach"}, "What color is the shirt?": {"gray"},
        "What are the dogs doing?": {"running"}, "What is the girl doing?": {"smiling"},
        "Is there a dog in the picture?": {"yes"},
    }  # fmt: skip
    assert {question: found[question] for question in expected} == expected


def test_no_phrase_is_read_across_two_captions() -> None:
    found = every_question("The man is dressed in black", "Dog runs after a ball")
    assert "What color is the dog?" not in found


def test_a_black_and_white_dog_is_not_white() -> None:
    assert "What color is the dog?" not in every_question("A black and white dog .")


def test_the_limit_and_the_draw() -> None:
    captions = ("Two brown dogs are running on the beach .", "A girl in a red shirt is smiling .")
    assert len(questions(captions, random.Random(0), 2)) == 2
    assert questions(captions, random.Random(1), 5) == questions(captions, random.Random(1), 5)
    everything = " ".join(THINGS)
    assert "no" not in dict(questions((everything,), random.Random(0), 9)).values()
