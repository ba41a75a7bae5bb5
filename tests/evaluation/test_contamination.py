"""Copies are found however they were changed; what is merely alike is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.overlap.contamination import compare_pictures, compare_texts, normalise, overlap, read_examples
from vlm.evaluation.overlap.near_pictures import Print, fingerprint, nearest, perceptual_hash


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture of soft shapes, as photographs are at a distance."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def shows(*paths: Path) -> list[Example]:
    return [Example(id=path.stem, image=path) for path in paths]


def says(*captions: str) -> list[Example]:
    return [Example(id=f"t{i}", image=Path("none.png"), captions=(text,)) for i, text in enumerate(captions)]


LONG = "two brown dogs run over the wet grass in a park"


def test_texts_that_share_words_in_a_row() -> None:
    train = says("nothing of the kind here at all in this one", f"He says: {LONG.upper()}.")
    found = compare_texts(
        train,
        says(
            "Two brown dogs run, over the wet grass", LONG, "a cat", "two brown dogs run over the dry grass in a park"
        ),
    )
    assert (found.samples, found.long_enough, found.overlapping, found.exact, found.train) == (4, 3, 2, 0, 2)
    # Both are there as part of a longer text; all their runs of words are.
    assert {(pair.benchmark, pair.train, pair.shared, pair.exact) for pair in found.pairs} == {
        ("t0", "t1", 1, False),
        ("t1", "t1", 1, False),
    }
    assert all(pair.run == "two brown dogs run over the wet grass" for pair in found.pairs)
    half = compare_texts(says(" ".join(LONG.split()[:8])), says(LONG)).pairs[0]
    assert (half.shared, half.exact) == (0.25, False)


def test_short_texts_are_only_found_whole_and_come_after_long_ones() -> None:
    train = says("A cat!", "the dog", LONG)
    found = compare_texts(train, says("a  CAT.", "a dog", LONG))
    assert (found.long_enough, found.overlapping, found.exact) == (1, 1, 2)
    assert [(pair.benchmark, pair.train, pair.exact) for pair in found.pairs] == [
        ("t2", "t2", True),
        ("t0", "t0", True),
    ]
    assert compare_texts(train, says("a cat sat"), words=2).overlapping == 1


def test_a_question_is_compared_with_its_answer_or_options() -> None:
    def asked(question: str, **more: tuple[str, ...]) -> list[Example]:
        return [Example(id="q", image=Path("none.png"), question=question, **more)]  # type: ignore[arg-type]

    one = asked("What is it?", answers=("cat", "cat", "a pet"))
    assert compare_texts(one, asked("what is it", answers=("a pet",))).exact == 1
    assert compare_texts(one, asked("what is it", answers=("dog",))).exact == 0
    choice = asked("Which?", options=("red", "blue"), answers=("A",))
    assert compare_texts(choice, asked("Which", options=("Red", "Blue"), answers=("B",))).exact == 1
    assert compare_texts(choice, asked("Which", options=("blue", "red"), answers=("A",))).exact == 0


def test_normalised_words() -> None:
    assert normalise("  Don't — STOP_now, 3.5 ﬁne ÉTÉ ") == ["don", "t", "stop", "now", "3", "5", "fine", "été"]
    empty = compare_texts(says("..."), says("!!!", ""))
    assert (empty.samples, empty.exact, empty.pairs) == (0, 0, ())


@pytest.fixture
def changed(tmp_path: Path) -> dict[str, Path]:
    """Copies of scene 0 of different kinds; others."""
    image = scene(0)
    made = {
        "same": (image, {}),
        "small": (image.resize((70, 64)), {}),
        "recompressed": (image, {"quality": 15}),
        "mirrored": (ImageOps.mirror(image), {"quality": 80}),
        "darker": (ImageEnhance.Brightness(image).enhance(0.8), {}),
        "grey": (image.convert("L"), {}),
        "other": (scene(1), {}),
        "upside_down": (ImageOps.flip(image), {}),
    }
    paths = {}
    for name, (picture, options) in made.items():
        paths[name] = tmp_path / f"{name}.{'jpg' if options else 'png'}"
        picture.save(paths[name], **options)
    return paths


def test_changed_copies_are_found_and_others_are_not(changed: dict[str, Path], tmp_path: Path) -> None:
    scene(0).save(tmp_path / "train.png")
    scene(2).save(tmp_path / "unrelated.png")
    train = shows(tmp_path / "unrelated.png", tmp_path / "train.png")
    reported: list[tuple[int, int]] = []
    found = compare_pictures(train, shows(*changed.values()), report=lambda done, total: reported.append((done, total)))
    assert {pair.benchmark for pair in found.pairs} == {
        "same", "small", "recompressed", "mirrored", "darker", "grey",
    }  # fmt: skip
    assert {pair.train for pair in found.pairs} == {"train"}
    assert [pair.benchmark for pair in found.pairs if pair.mirrored] == ["mirrored"]
    first = found.pairs[0]
    assert (first.benchmark, first.exact, first.distance, first.matches) == ("same", True, 0, 1)
    assert [pair.distance for pair in found.pairs[1:]] == sorted(pair.distance for pair in found.pairs[1:])
    assert (found.benchmark, found.train, found.exact, found.near, found.samples) == (8, 2, 1, 5, 6)
    assert reported[-1] == (10, 10)


def test_questions_of_one_picture_count_as_samples(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    scene(1).save(tmp_path / "b.png")
    asked = [
        Example(id=f"q{i}", image=tmp_path / name, question="?") for i, name in enumerate(["a.png"] * 3 + ["b.png"])
    ]
    found = compare_pictures(shows(tmp_path / "a.png"), asked)
    assert (found.benchmark, found.exact, found.samples) == (2, 1, 3)
    assert found.pairs[0].benchmark == "q0"


def test_frames_are_pictures(tmp_path: Path) -> None:
    for number in range(3):
        scene(number).save(tmp_path / f"{number}.png")
    clip = [Example(id="clip", video="c", frames=(tmp_path / "0.png", tmp_path / "1.png"))]
    found = compare_pictures(clip, shows(tmp_path / "1.png", tmp_path / "2.png"))
    assert [(pair.benchmark, pair.train) for pair in found.pairs] == [("1", "clip")]


def test_plain_pictures_are_compared_by_their_bytes_only(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        Image.new("RGB", (30, 30), colour).save(tmp_path / f"{name}.png")
    found = compare_pictures(shows(tmp_path / "a.png"), shows(tmp_path / "b.png", tmp_path / "c.png"))
    assert ([pair.benchmark for pair in found.pairs], found.plain) == (["b"], 2)


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    found = compare_pictures(shows(tmp_path / "a.png"), shows(tmp_path / "b.png", tmp_path / "gone.png"))
    assert (found.benchmark, found.pairs) == (0, ())
    assert len(found.unreadable) == 2
    assert "b.png" in found.unreadable[0]
    assert "gone.png: expected an image file, got no such file" in found.unreadable[1]
    assert compare_pictures([], []).pairs == ()
    with pytest.raises(BadInput, match="0 to 32"):
        compare_pictures([], [], distance=-1)


def test_the_mirrored_hash_is_that_of_the_mirrored_picture() -> None:
    for seed in range(5):
        image = scene(seed, (128, 128))
        here, turned = perceptual_hash(image), perceptual_hash(ImageOps.mirror(image))
        assert here is not None
        assert turned is not None
        assert np.array_equal(here[1], turned[0])
        assert np.array_equal(here[0], turned[1])


def test_the_search_is_that_of_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain loop, in blocks that do not divide the number of pictures."""
    monkeypatch.setattr("vlm.evaluation.overlap.near_pictures.CELLS", 50)
    monkeypatch.setattr("vlm.evaluation.overlap.near_pictures.KNOWN_AT_ONCE", 7)
    random = np.random.default_rng(0)

    def prints(count: int) -> list[Print]:
        rows = [random.integers(0, 256, (2, 8), np.uint8) for _ in range(count)]
        return [Print("", None, None) if i % 9 == 4 else Print("", row[0], row[1]) for i, row in enumerate(rows)]

    known, asked = prints(40), prints(23)
    for one, match in zip(asked, nearest(known, asked, 24), strict=True):
        distances = {row: bits_apart(one, other) for row, other in enumerate(known)}
        within = [row for row, distance in distances.items() if distance <= 24]
        if not within:
            assert match is None
            continue
        assert match is not None
        assert (match.distance, match.matches) == (min(distances.values()), len(within))
        assert distances[match.row] == match.distance


def bits_apart(one: Print, other: Print) -> int:
    """Mirrored or not; 65 where one of them is plain."""
    if one.bits is None or one.mirrored is None or other.bits is None:
        return 65
    return min(int(np.unpackbits(other.bits ^ bits).sum()) for bits in (one.bits, one.mirrored))


def test_a_folder_of_pictures_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_DATA", raising=False)
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        scene(0).save(tmp_path / name / "a.png")
    (tmp_path / "test" / "notes.txt").write_text("no picture")
    found = overlap(str(tmp_path / "train"), str(tmp_path / "test"))
    assert (found.train_examples, found.benchmark_samples, found.pictures.exact, found.texts.samples) == (1, 1, 1, 0)
    assert fingerprint(tmp_path / "test" / "a.png") is not None
    with pytest.raises(BadInput, match="unknown dataset 'nowhere'"):
        read_examples("nowhere", str(tmp_path))
    with pytest.raises(BadInput, match="no data folder"):
        read_examples("flickr8k:test", None)


@pytest.mark.parametrize("content", ["3", "[dataset]", "dataset", ""])
def test_a_file_that_is_no_card_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(BadInput, match=r"own\.yaml: key \(top level\)"):
        read_examples(str(tmp_path / "own.yaml"), None, benchmark=True)
