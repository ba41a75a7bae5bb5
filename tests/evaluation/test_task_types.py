"""What each kind of benchmark asks and how it scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from squares import COLORS, FakeModel, write_benchmark

from vlm.errors import BadInput
from vlm.evaluation.results import Sample, TaskResult, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.metrics.caption import bleu, cider
from vlm.metrics.java import NotAvailable
from vlm.metrics.pope import pope


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs behind METEOR and SPICE take long to start; `tests/metrics` compares them."""
    for name in ("meteor", "spice"):
        monkeypatch.setattr(f"vlm.evaluation.task_types.caption.{name}", lambda *_: NotAvailable("not in this test"))


def run(folder: Path, model: FakeModel, rows: list[dict[str, Any]], **card: Any) -> tuple[TaskResult, list[Sample]]:
    path = write_benchmark(folder / "data", rows, **card)
    options = Options(str(folder / "data"), output=folder / "run")
    [result] = evaluate(model, [path], options)  # type: ignore[arg-type]
    return result, list(read_samples(folder / "run" / result.task))


def test_captions_score_as_the_metrics_do(tmp_path: Path) -> None:
    rows = [
        {"color": color, "captions": [f"a {color} square on a wall", f"the wall has a square that is {color}"]}
        for color in list(COLORS) * 2
    ]
    model = FakeModel(lambda color, question: f"a {color} square on a door" if color != "red" else "red")
    result, samples = run(tmp_path, model, rows, kind="caption")
    references, said = [list(s.references) for s in samples], [str(s.output) for s in samples]
    scores = cider(references, said)
    assert result.main == "CIDEr"
    assert result.figures["CIDEr"].value == pytest.approx(scores.value, abs=1e-6)
    assert [s.scores["CIDEr"] for s in samples] == pytest.approx(scores.per_item)
    assert result.figures["BLEU-4"].value == pytest.approx(bleu(references, said)[3].value, abs=1e-6)
    assert result.figures["CIDEr_pictures_shuffled"].value < result.figures["CIDEr"].value
    low, high = result.figures["BLEU-4"].low, result.figures["BLEU-4"].high
    assert low is not None
    assert high is not None
    assert "METEOR not available: not in this test" in result.notes
    assert low <= result.figures["BLEU-4"].value <= high


def test_intervals_of_a_handful_of_captions_stay_within_what_the_metric_can_be(tmp_path: Path) -> None:
    """Student's t of two alike and one far off reaches below 0."""
    rows = [{"color": color, "captions": [f"a {color} square on the {color} wall"]} for color in COLORS]
    said = {"red": "a red square on the red wall", "blue": "a dog", "green": "a cat"}
    result, _ = run(tmp_path, FakeModel(lambda color, question: said[color]), rows, kind="caption")
    cider_, rouge = result.figures["CIDEr"], result.figures["ROUGE-L"]
    assert (cider_.low, cider_.high, cider_.bounds) == (0, 10, (0, 10))
    assert (rouge.low, rouge.high, rouge.bounds) == (0, 1, (0, 1))
    assert cider_.error is not None
    assert cider_.value - 2 * cider_.error < 0, "the error is as it was"


def test_captions_by_category(tmp_path: Path) -> None:
    """How rare a word is is counted in the category alone."""
    rows = [
        {"color": color, "captions": [f"a {color} square on {place} wall"], "place": place}
        for place in ("a", "the")
        for color in COLORS
    ]
    model = FakeModel(lambda color, question: f"a {color} square")
    result, samples = run(tmp_path, model, rows, kind="caption", category="place")
    assert list(result.categories) == ["a", "the"]
    alone = cider([list(s.references) for s in samples[:3]], [str(s.output) for s in samples[:3]])
    assert result.categories["a"]["CIDEr"].value == pytest.approx(alone.value, abs=1e-6)
    assert result.categories["a"]["CIDEr"].n == 3


def test_answers_are_scored_by_the_cards_protocol(tmp_path: Path) -> None:
    rows = [
        {"color": "red", "question": "?", "answers": ["The red."] * 4 + ["blue"] * 6, "type": "color"},
        {"color": "blue", "question": "?", "answers": ["blue"] * 10, "type": "color"},
        {"color": "green", "question": "?", "answers": ["two"] * 10, "type": "number"},
    ]
    result, samples = run(tmp_path, FakeModel(), rows, kind="vqa", protocol="vqav2", category="type")
    assert [s.scores["accuracy"] for s in samples] == [1.0, 1.0, 0.0]
    assert result.figures["accuracy"].value == pytest.approx(200 / 3, abs=1e-4)
    assert result.categories["color"]["accuracy"].value == 100
    assert result.categories["number"]["accuracy"].value == 0
    assert result.figures["accuracy"].low is not None


@pytest.mark.parametrize(("answer", "right"), [("as_said", 0.0), ("short", 1.0)])
def test_the_card_says_how_an_answer_is_read(tmp_path: Path, answer: str, right: float) -> None:
    model = FakeModel(lambda color, question: "Red.\nIt is a red square.")
    rows = [{"color": "red", "question": "What color?", "answers": ["red"]}]
    _, samples = run(tmp_path, model, rows, kind="vqa", protocol="gqa", answer=answer)
    assert samples[0].scores["accuracy"] == right
    assert samples[0].output == "Red.\nIt is a red square."


def test_pope_equals_the_metric(tmp_path: Path) -> None:
    said = ["Yes, there is.", "No.", "yes", "not that I see", "Yes", "No"]
    labels = ["yes", "yes", "no", "no", "yes", "no"]
    replies = iter(said)
    rows = [{"color": "red", "question": "Is there a dog?", "answers": [label]} for label in labels]
    result, samples = run(tmp_path, FakeModel(lambda *_: next(replies)), rows, kind="vqa", protocol="pope")
    expected = pope(said, labels)
    got = {key: result.figures[key].value / 100 for key in ("accuracy", "precision", "recall", "F1", "yes_ratio")}
    want = {"accuracy": expected.accuracy, "precision": expected.precision, "recall": expected.recall}
    assert got == pytest.approx({**want, "F1": expected.f1, "yes_ratio": expected.yes_ratio}, abs=1e-6)
    assert result.main == "F1"
    assert [s.prediction for s in samples][:2] == ["yes", "no"]


def test_a_choice_is_read_from_its_letter(tmp_path: Path) -> None:
    rows = [
        {"color": "red", "question": "Color?", "options": ["red", "blue"], "answers": ["A"]},
        {"color": "blue", "question": "Color?", "options": ["red", "blue"], "answers": ["B"]},
        {"color": "green", "question": "Color?", "options": ["red", "blue"], "answers": ["B"]},
    ]
    replies = {"red": "A", "blue": "(A) it is", "green": "hmm"}
    result, samples = run(tmp_path, FakeModel(lambda color, _: replies[color]), rows, kind="choice")
    assert [s.scores["accuracy"] for s in samples] == [1.0, 0.0, 0.0]
    assert result.figures["unreadable"].value == pytest.approx(100 / 3, abs=1e-4)
    assert "A. red\nB. blue" in samples[0].prompt
    assert "50.0 %" in result.notes[0]


def test_a_card_says_whose_rule_reads_a_choice(tmp_path: Path) -> None:
    rows = [{"color": "red", "question": "Color?", "options": ["red", "blue"], "answers": ["A"]}]
    told = FakeModel(lambda *_: "(A) or (B)")  # MMMU takes the last one, VLMEvalKit none
    result, samples = run(tmp_path / "a", told, rows, kind="choice")
    assert (samples[0].prediction, samples[0].scores["unreadable"]) == ("B", 0.0)
    result, samples = run(tmp_path / "b", told, rows, kind="choice", reader="vlmevalkit")
    assert (samples[0].prediction, samples[0].scores["unreadable"]) == (None, 1.0)
    refused = FakeModel(lambda *_: "Cannot determine the answer")
    result, samples = run(tmp_path / "c", refused, rows, kind="choice", reader="vlmevalkit")
    assert samples[0].scores == {"accuracy": 0.0, "unreadable": 0.0}
    rows = rows * 40
    result, samples = run(tmp_path / "d", FakeModel(lambda *_: "hmm"), rows, kind="choice", unreadable="guess")
    assert {s.prediction for s in samples} == {"A", "B"}
    assert 10 < sum(s.scores["accuracy"] or 0 for s in samples) < 30
    assert result.figures["unreadable"].value == 100
    assert "counts as a guess" in " ".join(result.notes)


@pytest.mark.parametrize(("knows", "right"), [(True, 1.0), (False, 0.0)])
def test_a_circular_question_wants_every_rotation(tmp_path: Path, knows: bool, right: float) -> None:
    def rule(color: str, question: str) -> str:
        """One that knows names the letter beside the colour; the other always says A."""
        lines = dict(line.split(". ")[::-1] for line in question.splitlines() if ". " in line and len(line) < 12)
        return lines[color] if knows else "A"

    rows = [{"color": "red", "question": "Color?", "options": ["red", "blue", "green"], "answers": ["A"]}]
    result, samples = run(tmp_path, FakeModel(rule), rows, kind="choice", circular=True)
    assert samples[0].scores["accuracy"] == right
    assert len(str(samples[0].output).split(" | ")) == 3
    assert result.figures["accuracy"].low is None  # one question has no interval


def test_retrieval_finds_each_way_and_says_what_it_found(tmp_path: Path) -> None:
    rows = [{"color": color, "captions": [f"a {color} square", f"{color}"]} for color in COLORS]
    result, samples = run(tmp_path, FakeModel(), rows, kind="retrieval")
    assert result.figures["text_to_image_R@1"].value == 100
    assert result.figures["image_to_text_R@1"].value == 100
    queries = [s for s in samples if s.category == "text_to_image"]
    assert [s.id for s in queries] == ["1#0", "1#1", "2#0", "2#1", "3#0", "3#1"]
    assert queries[0].prediction == "squares/0.png" == queries[0].output[0]["item"]
    assert queries[0].cluster == "squares/0.png"
    assert result.figures["text_to_image_R@1"].joint, "more pictures make it harder"
    assert result.figures["text_to_image_mean_rank"].bounds == (1, 3)
    assert result.figures["image_to_text_median_rank"].bounds == (1, 6)
    assert result.warnings == ()


def test_captions_that_are_not_read_to_their_end_are_told(tmp_path: Path) -> None:
    rows = [{"color": color, "captions": [f"a {color} square " * 4, color]} for color in COLORS]
    result, _ = run(tmp_path, FakeModel(), rows, kind="retrieval")
    (warning,) = result.warnings
    assert warning.endswith("12 tokens, of which the first 8 are read (2 more like it)")


def test_equal_candidates_share_their_rank(tmp_path: Path) -> None:
    rows = [{"color": "red", "captions": ["red"]}, {"color": "red", "captions": ["red"]}]
    result, _ = run(tmp_path, FakeModel(), rows, kind="retrieval")
    assert result.figures["text_to_image_mean_rank"].value == 1.5
    assert result.figures["text_to_image_R@1"].value == 100  # the middle of 1 and 2 still counts for rank 1


MEANT = {"warm": "red", "cold": "blue", "fresh": "green"}
"""Words that the similarity knows nothing of, and the language model does."""


@pytest.mark.parametrize(("top", "after"), [(3, 100.0), (1, 100 / 3)])
def test_the_best_of_a_search_in_the_language_models_order(tmp_path: Path, top: int, after: float) -> None:
    rows = [{"color": color, "captions": [word, "another"]} for word, color in MEANT.items()]
    model = FakeModel(lambda color, text: "fits" if MEANT[text] == color else "no")
    result, samples = run(tmp_path, model, rows, kind="rerank", top=top)
    figures = {key: figure.value for key, figure in result.figures.items()}
    assert figures["similarity_R@1"] == pytest.approx(100 / 3, abs=1e-4)  # the three words are one to it
    assert (result.main, figures["match_R@1"]) == ("match_R@1", pytest.approx(after, abs=1e-4))
    assert figures["gain_R@1"] == pytest.approx(after - 100 / 3, abs=1e-4)
    assert figures["match_R@5"] == figures["similarity_R@5"] == 100
    assert result.figures["gain_R@1"].bounds == (-100, 100)
    assert [s.id for s in samples] == ["1#0", "2#0", "3#0"]
    assert [len(s.output) for s in samples] == [top] * 3
    assert samples[0].scores["rank"] == (1 if top == 3 else samples[0].scores["rank"])
    assert model.asked == 3 + 3 + 3 * top, "pictures, texts and pairs, each once"


def test_queries_of_a_reranking_are_spread_over_the_data(tmp_path: Path) -> None:
    rows = [{"color": color, "captions": ["warm"]} for color in list(COLORS) * 3]
    model = FakeModel(lambda color, text: "fits" if color == "red" else "no")
    result, samples = run(tmp_path, model, rows, kind="rerank", queries=3, top=2)
    assert [s.id for s in samples] == ["1#0", "5#0", "9#0"]
    assert result.notes == ("3 texts, 9 pictures or clips, the best 2 of each looked at again",)


def test_classification_by_name(tmp_path: Path) -> None:
    rows = [{"color": "red", "answers": ["red"]}] * 3 + [{"color": "blue", "answers": ["green"]}]
    prompts = ["a photo of a {label} square.", "{label}"]
    result, samples = run(tmp_path, FakeModel(), rows, kind="classification", prompts=prompts)
    assert result.figures["accuracy"].value == 75
    assert result.figures["mean_class_recall"].value == 50  # red all right, green never
    assert result.categories["green"]["recall"].value == 0
    assert samples[3].prediction == "blue"
    confidence = samples[0].scores["confidence"]
    assert confidence is not None
    assert 1 / 3 < confidence <= 1


@pytest.mark.parametrize(
    ("card", "row", "says"),
    [
        ({"kind": "vqa"}, {"question": "?"}, "has no answers"),
        ({"kind": "retrieval"}, {"question": "?"}, "has no captions"),
        ({"kind": "rerank"}, {"question": "?"}, "has no captions"),
        ({"kind": "choice"}, {"question": "?", "answers": ["A"]}, "0 options"),
        ({"kind": "choice"}, {"question": "?", "options": ["a", "b"], "answers": ["C"]}, "expected one of AB"),
        ({"kind": "classification"}, {"answers": ["cow"]}, "is of class"),
    ],
)
def test_an_example_a_kind_cannot_use_is_named(
    tmp_path: Path, card: dict[str, Any], row: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        run(tmp_path, FakeModel(), [{"color": "red", **row}], **card)


def test_a_category_that_no_example_has_is_named(tmp_path: Path) -> None:
    model, rows = FakeModel(), [{"color": "red", "question": "?", "answers": ["red"], "type": "color", "part": 2}]
    with pytest.raises(BadInput) as raised:
        run(tmp_path, model, rows, kind="vqa", category="tpye")
    assert str(raised.value) == (
        "benchmark squares-test: category: no example has the key 'tpye'; expected one of part, type"
    )
    assert model.asked == 0
    with pytest.raises(BadInput, match="expected one of none, as they have no meta"):
        run(tmp_path, model, [{"color": "red", "question": "?", "answers": ["red"]}], kind="vqa", category="type")
    with pytest.raises(BadInput, match=r"benchmark\.yaml: key category: .*kind retrieval has categories of its own"):
        run(tmp_path, model, [{"color": "red", "captions": ["red"]}], kind="retrieval", category="type")


def test_a_category_that_is_empty_everywhere_is_told(tmp_path: Path) -> None:
    rows = [{"color": "red", "question": "?", "answers": ["red"], "type": None}]
    result, _ = run(tmp_path, FakeModel(), rows, kind="vqa", category="type")
    assert result.categories == {}
    assert "no figures by type: it is empty in all examples" in result.notes


def test_a_clip_of_frames_goes_by_its_own_name(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "data", [{"color": color, "captions": [color]} for color in COLORS])
    clips = [
        {"video": f"clip{i}", "frames": [f"{i}.png", f"{(i + 1) % 3}.png"], "captions": [color], "split": "test"}
        for i, color in enumerate(COLORS)
    ]
    (tmp_path / "data/squares/rows.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    card = yaml.safe_load((tmp_path / "data/benchmark.yaml").read_text()) | {"kind": "retrieval"}
    (tmp_path / "data/benchmark.yaml").write_text(yaml.safe_dump(card))
    options = Options(str(tmp_path / "data"), output=tmp_path / "run")
    [result] = evaluate(FakeModel(), [str(tmp_path / "data/benchmark.yaml")], options)  # type: ignore[arg-type]
    samples = list(read_samples(tmp_path / "run" / result.task))
    assert {entry["item"] for entry in samples[0].output} == {"clip0", "clip1", "clip2"}
    assert samples[0].references == ("clip0",)
    assert samples[3].inputs == {"frames": ["squares/0.png", "squares/1.png"]}
    assert samples[3].cluster == "clip0"
