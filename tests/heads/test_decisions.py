"""Typed decisions: plain sums of log-probabilities, one encode and one prefill, and no order among options."""

from __future__ import annotations

import math
import random
from itertools import permutations
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from vlm.conversation.messages import question, read_messages
from vlm.errors import BadInput
from vlm.heads.decisions.decider import Decider, Temperatures
from vlm.heads.decisions.questions import Choice, Decision, Score, YesNo, forms, words
from vlm.heads.writer import Writer
from vlm.media.open import Media
from vlm.models.assemble import assemble
from vlm.models.assembled import Assembled
from vlm.models.card import load_card

PERMUTATION = 1e-5
"""What the order of options may move a probability by, at most: the figure of `docs/decide.md`."""
DOG = YesNo("Is there a dog in the picture?", "dog")
COLOR = Choice("What color is the square?", ("red", "dark blue", "green on the wall", "black"), "color")
SIZE = Score("How large is the square?", ("small", "as large as the wall", "huge"), "size")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    folder = tmp_path_factory.mktemp("decisions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        return assemble(load_card(str(tiny.write_card(folder / "model"))), offline=True)


def picture(seed: int = 0) -> Media:
    return Media((Image.effect_noise((70 + seed, 64), 60).convert("RGB"),))


def clip() -> Media:
    return Media(tuple(picture(i).frames[0].resize((70, 64)) for i in range(4)), (0.0, 1.0, 2.0, 3.0))


@torch.inference_mode()
def plain(parts: Assembled, item: Media, asked: str, label: str) -> float:
    """Each form of a label in a forward pass of its own, without packing."""
    prompt = parts.processor.prompt(question(asked, item.is_clip), [item])
    inputs = parts.processor.inputs(prompt)
    total = 0.0
    for form in forms(label):
        reply = parts.processor.reply(form)
        chances = parts.model(torch.tensor([prompt.ids + reply]), inputs.pixels, inputs.grids)[0].log_softmax(dim=-1)
        total += math.exp(sum(float(chances[len(prompt.ids) + i - 1, token]) for i, token in enumerate(reply)))
    return math.log(total)


@pytest.mark.parametrize("item", [picture(), clip()], ids=["picture", "clip"])
def test_a_label_has_the_log_probability_of_its_tokens_and_the_end(parts: Assembled, item: Media) -> None:
    decider = Decider(Writer(parts))
    answers, tokens = decider.decide(decider.about_media(item), [DOG, COLOR, SIZE])
    for found in answers:
        own = [plain(parts, item, found.question.text, label) for label in found.question.labels]
        assert found.log_probabilities == pytest.approx(own, abs=1e-4)
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert found.mass == pytest.approx(sum(map(math.exp, own)), rel=1e-3)
        assert (found.temperature, found.source) == (None, None)
    assert tokens > 0


def test_questions_share_one_encode_and_one_prefill(parts: Assembled, monkeypatch: pytest.MonkeyPatch) -> None:
    decider, item = Decider(Writer(parts)), picture()
    alone = [decider.decide(decider.about_media(item), [asked]).answers[0] for asked in (DOG, COLOR, SIZE)]
    calls: list[str] = []
    for kind, name, called in ((Writer, "visual", "encode"), (type(parts.model.language), "hidden", "prefill")):
        real = getattr(kind, name)

        def noted(self: object, *what: object, real: Any = real, call: str = called, **more: object) -> Any:
            calls.append(call)
            return real(self, *what, **more)

        monkeypatch.setattr(kind, name, noted)
    together = decider.decide(decider.about_media(item), [DOG, COLOR, SIZE])
    assert calls == ["encode", "prefill"]
    for one, other in zip(together.answers, alone, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)
    monkeypatch.setattr("vlm.heads.decisions.decider.TOKENS", 40)
    split = decider.decide(decider.about_media(item), [DOG, COLOR, SIZE])
    assert calls.count("encode") == 2
    assert calls.count("prefill") > 2
    assert split.tokens > together.tokens
    for one, other in zip(split.answers, alone, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("passes", [0, 1])
def test_what_nobody_wants_any_more_is_not_computed(
    parts: Assembled, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    """Neither the picture nor, after it, the question."""
    writer, calls = Writer(parts), list[str]()
    visual = writer.visual
    monkeypatch.setattr(writer, "visual", lambda *given: (calls.append("picture"), visual(*given))[1])
    monkeypatch.setattr(
        "vlm.heads.decisions.decider.log_likelihoods", lambda *given: pytest.fail("the model was asked")
    )

    def wanted() -> None:
        if len(calls) == passes:
            raise InterruptedError

    decider = Decider(writer)
    with pytest.raises(InterruptedError):
        decider.decide(decider.about_media(picture()), [DOG], wanted=wanted)
    assert calls == ["picture"] * passes


def test_the_order_of_options_moves_no_answer(parts: Assembled) -> None:
    """Every order of the options, descriptions among them, and of the questions around them."""
    decider, item = Decider(Writer(parts)), picture()
    about = {"red": "like fire", "black": "like coal"}
    worst, generator = 0.0, random.Random(0)
    first: dict[str, float] = {}
    for options in permutations(COLOR.options):
        said = list(about.items())
        generator.shuffle(said)
        asked = [DOG, Choice(COLOR.text, options, about=dict(said)), SIZE]
        generator.shuffle(asked)
        found = decider.decide(decider.about_media(item), asked).answers
        (chances,) = (one.probabilities for one in found if one.question.kind == "choice")
        first = first or chances
        worst = max([worst, *(abs(chances[label] - first[label]) for label in first)])
    assert worst <= PERMUTATION


def test_a_text_is_asked_about_at_the_end_of_the_users_words(parts: Assembled) -> None:
    decider, writer = Decider(Writer(parts)), Writer(parts)
    said = read_messages([{"role": "user", "content": "A red square on the wall."}])
    prompt = decider.about_conversation(said)("Is it red?")
    whole = [{"role": "user", "content": "A red square on the wall.\n\nIs it red?"}]
    assert prompt.ids == writer.processor.read(whole).ids
    answered = read_messages([*whole, {"role": "assistant", "content": "yes"}])
    own = [*whole, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "Is it large?"}]
    assert decider.about_conversation(answered)("Is it large?").ids == writer.processor.read(own).ids
    (found,) = decider.decide(decider.about_conversation(said), [DOG]).answers
    assert 0 < found.probabilities["yes"] < 1


def test_a_temperature_flattens_the_answer_and_leaves_the_mass(parts: Assembled) -> None:
    item, ask = picture(), [DOG, COLOR]
    bare, warm = Decider(Writer(parts)), Decider(Writer(parts), Temperatures({"yes_no": 4.0}, "decision.json"))
    before, after = (one.decide(one.about_media(item), ask).answers for one in (bare, warm))
    assert (after[0].temperature, after[0].source) == (4.0, "decision.json")
    assert (after[1].temperature, after[1].source) == (None, None)
    assert after[1] == before[1]
    odds = [math.log(one.probabilities["yes"] / one.probabilities["no"]) for one in (before[0], after[0])]
    assert odds[1] == pytest.approx(odds[0] / 4)
    assert after[0].mass == before[0].mass


def test_what_an_answer_says() -> None:
    chances = tuple(map(math.log, (0.1, 0.3, 0.1)))
    level = Decision(SIZE, chances)
    assert level.best == "as large as the wall"
    assert level.score == pytest.approx(0.2 * 0 + 0.6 * 1 + 0.2 * 2)
    assert level.confidence == pytest.approx(1 - 0.4 / (2 / 3))
    assert level.mass == pytest.approx(0.5)
    option = Decision(Choice("Which?", ("a", "b", "c")), chances)
    assert option.confidence == pytest.approx((0.6 - 1 / 3) / (2 / 3))
    assert option.as_json()["probabilities"][1] == {"label": "b", "probability": 0.6}
    assert Decision(Choice("Which?", ("b", "a")), (-1.0, -1.0)).best == "a"
    far = Decision(DOG, (-2000.0, -2001.0))
    assert far.mass == 0
    assert sum(far.probabilities.values()) == pytest.approx(1)


def test_descriptions_of_labels_are_read_in_one_order() -> None:
    asked = Choice("Tone?", ("calm", "angry"), about={"calm": "polite", "angry": "loud"})
    assert words(asked) == "Tone?\nangry: loud\ncalm: polite"
    assert words(YesNo(" Is it spam? ", about={"yes": "an ad"})) == "Is it spam?\nyes: an ad"
    assert forms("yes") == ["yes", "Yes", "yes.", "Yes."]
    assert forms("Yes.") == ["Yes", "yes", "Yes.", "yes."]
    assert forms("3") == ["3", "3."]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: YesNo(" "), "question is empty"),
        (lambda: Choice("Which?", ("a",)), "2 to 255 labels, got 1"),
        (lambda: Choice("Which?", "ab"), "got a single text"),
        (lambda: Choice("Which?", ("cat", "Cat.")), "told apart, got 'cat' and 'Cat.'"),
        (lambda: Choice("Which?", ("cat", 3)), "label 2: expected a text, got int"),
        (lambda: Choice("Which?", ("cat", " ")), "label 2 is empty"),
        (lambda: Score("How?", ("a", "b"), about={"c": "d"}), "about: expected some of a, b, got 'c'"),
        (lambda: YesNo("Is it?\ud800"), "half a character"),
    ],
)
def test_what_cannot_be_asked_is_refused(make: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()  # type: ignore[operator]


def test_too_long_and_no_questions_are_refused_before_the_model_runs(parts: Assembled) -> None:
    decider = Decider(Writer(parts))
    ask = decider.about_media(picture())
    with pytest.raises(BadInput, match="expected a list of YesNo"):
        decider.decide(ask, [])
    with pytest.raises(BadInput, match="question 1: expected YesNo"):
        decider.decide(ask, ["Is it?"])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="256"):
        decider.decide(ask, [YesNo("Is there a dog? " * 300)])
