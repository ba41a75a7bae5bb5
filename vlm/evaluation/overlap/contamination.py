"""Was a benchmark trained on? Texts by shared runs of words, pictures by perceptual hash.

What is found are suspicions for a person to look at, the worst first: short questions are alike without having been
copied, and pictures of one scene look alike. It is a lower bound, too: paraphrases and crops are not seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm import assets, config
from vlm.datasets.conversations import ConversationFile, Sample
from vlm.datasets.examples import Example, data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput
from vlm.evaluation.card import load_card as load_benchmark
from vlm.evaluation.overlap.near_pictures import Match, fingerprints, nearest
from vlm.media.folders import list_media
from vlm.media.kinds import is_image, is_video

WORDS = 8
"""Words in a row that two texts must share: the least of GPT-3's 8 to 13 (Brown et al. 2020, appendix C)."""
DISTANCE = 8
"""Bits of 64 in which the hashes of two pictures may differ. On Flickr8k all of 150 pictures at half the size and JPEG
quality 30, and 99 % cropped by 2 % a side, are within; of 6 million pairs of different pictures one is."""

Report = Callable[[int, int], None]
"""Told how many pictures are read, of how many."""


@dataclass(frozen=True)
class TextPair:
    """A benchmark sample's most suspicious text and the training example that has it."""

    benchmark: str
    train: str
    shared: float
    """The share of the benchmark text's runs of words that are in the training set."""
    exact: bool
    """The whole text, punctuation and case aside, is in the training set."""
    text: str
    run: str
    """The first run of words found, as normalised; the whole text where `exact`."""


@dataclass(frozen=True)
class Texts:
    samples: int
    """Benchmark samples that have a text."""
    long_enough: int
    """Those with a text of at least `words` words; no other can share a run."""
    overlapping: int
    exact: int
    train: int
    """Training texts."""
    words: int
    pairs: tuple[TextPair, ...]


@dataclass(frozen=True)
class PicturePair:
    """A benchmark picture and the training picture most like it."""

    benchmark: str
    train: str
    distance: int
    exact: bool
    """The two files are the same, byte for byte."""
    mirrored: bool
    matches: int
    """Training pictures within the distance."""
    benchmark_path: str
    train_path: str


@dataclass(frozen=True)
class Pictures:
    benchmark: int
    train: int
    exact: int
    """Benchmark pictures whose file is in the training set."""
    near: int
    """Benchmark pictures that are not, but look like one of it."""
    samples: int
    """Benchmark samples with a picture of either kind."""
    distance: int
    plain: int
    """Benchmark pictures with too little in them to be compared other than byte for byte."""
    unreadable: tuple[str, ...]
    pairs: tuple[PicturePair, ...]


@dataclass(frozen=True)
class Overlap:
    train: str
    benchmark: str
    train_examples: int
    benchmark_samples: int
    texts: Texts
    pictures: Pictures


def overlap(
    train: str,
    benchmark: str,
    data: str | None = None,
    *,
    limit: int | None = None,
    words: int = WORDS,
    distance: int = DISTANCE,
    report: Report | None = None,
) -> Overlap:
    """What of `benchmark` is in `train`.

    Each is `CARD:SPLIT` of a dataset card (all splits without one; a name or a YAML file), a file of conversations
    (`.jsonl`; those of text alone are passed over) or a folder of pictures; the benchmark may be a benchmark card.
    `limit` takes the first examples of both. Raises `BadInput` where one is none of these.
    """
    of_train, of_benchmark = read_examples(train, data)[:limit], read_examples(benchmark, data, True)[:limit]
    return Overlap(
        train=train,
        benchmark=benchmark,
        train_examples=len(of_train),
        benchmark_samples=len(of_benchmark),
        texts=compare_texts(of_train, of_benchmark, words),
        pictures=compare_pictures(of_train, of_benchmark, distance, report),
    )


def read_examples(source: str, data: str | None, benchmark: bool = False) -> list[Example]:
    """The examples `source` stands for, as `overlap` describes; a benchmark card only where `benchmark`."""
    path = Path(source)
    if path.is_dir():
        return [Example(id=str(file), image=file) for file in list_media(path) if is_image(file)]
    if path.suffix == ".jsonl":
        return [example for sample in ConversationFile(path) for example in _shown(sample)]
    name, colon, split = source.rpartition(":")
    if colon and not path.exists():
        return load_dataset(name).read(data_folder(data), split)
    if benchmark and _is_benchmark(source):
        card = load_benchmark(source)
        return load_dataset(card.dataset).read(data_folder(data), card.split)
    return load_dataset(source).read(data_folder(data))


def _shown(sample: Sample) -> list[Example]:
    """A conversation's texts with its pictures, and each of its clips; nothing of one that shows none."""
    texts = tuple(message.text for message in sample.messages if message.role != "system" and message.text.strip())
    files = [Path(source) for source in sample.media if isinstance(source, str)]
    pictures = tuple(path for path in files if not is_video(path))
    line = f"line {sample.where.rpartition(':')[2]}"
    found = [Example(id=line, frames=pictures, captions=texts)] if pictures else []
    clips = [path for path in files if is_video(path)]
    return found + [Example(id=line, video=str(clip), captions=texts) for clip in clips]


def _is_benchmark(source: str) -> bool:
    """Whether a card is a benchmark's, which names a data set, and not a data set's own."""
    if not Path(source).is_file():
        return source in assets.cards("eval")
    content = config.read_yaml(Path(source))
    return isinstance(content, dict) and "dataset" in content


def compare_texts(train: Iterable[Example], benchmark: Sequence[Example], words: int = WORDS) -> Texts:
    """Runs of `words` words of captions, or of a question with its options or answer, that are in both.

    Normalised as in GPT-3's appendix C: case, punctuation and spacing do not count. A text shorter than `words` can
    only be found whole. Writing without spaces between words is not taken apart.
    """
    texts = [(row, text, normalise(text)) for row, example in enumerate(benchmark) for text in texts_of(example)]
    wholes = {" ".join(tokens) for _, _, tokens in texts if tokens}
    runs = {run for _, _, tokens in texts for run in runs_of(tokens, words)}
    found: dict[str, str] = {}
    """A run or a whole text of the benchmark -> the first training example it is in."""
    found_whole: dict[str, str] = {}
    count = 0
    for example in train:
        for text in texts_of(example):
            count += 1
            tokens = normalise(text)
            if (whole := " ".join(tokens)) in wholes:
                found_whole.setdefault(whole, example.id)
            for run in runs_of(tokens, words):
                if run in runs:
                    found.setdefault(run, example.id)
    worst: dict[int, TextPair] = {}
    for row, text, tokens in texts:
        mine, whole = list(runs_of(tokens, words)), " ".join(tokens)
        hits = [run for run in mine if run in found]
        exact = whole in found_whole
        if not hits and not exact:
            continue
        source, run = (found_whole[whole], whole) if exact else (found[hits[0]], hits[0])
        pair = TextPair(benchmark[row].id, source, len(hits) / len(mine) if mine else 1.0, exact, text, run)
        if row not in worst or _badness(pair) > _badness(worst[row]):
            worst[row] = pair
    return Texts(
        samples=len({row for row, _, tokens in texts if tokens}),
        long_enough=len({row for row, _, tokens in texts if len(tokens) >= words}),
        overlapping=len({row for row, _, tokens in texts if any(run in found for run in runs_of(tokens, words))}),
        exact=sum(pair.exact for pair in worst.values()),
        train=count,
        words=words,
        pairs=tuple(sorted(worst.values(), key=_badness, reverse=True)),
    )


def compare_pictures(
    train: Sequence[Example], benchmark: Sequence[Example], distance: int = DISTANCE, report: Report | None = None
) -> Pictures:
    """Pictures (frames, of clips that come as frames) that are the same file, or look alike, mirrored or not.

    A picture that several examples share is looked at once and named by its first. Raises `BadInput` for a distance
    that is no number of bits.
    """
    if not 0 <= distance <= 32:
        raise BadInput(f"distance {distance}; expected 0 to 32 of 64 bits")
    owners_train, owners = _owners(train), _owners(benchmark)
    paths = [*owners, *(path for path in owners_train if path not in owners)]
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if report is not None:
            report(done, len(paths))

    prints, unreadable = fingerprints(paths, advance)
    known, asked = [p for p in owners_train if p in prints], [p for p in owners if p in prints]
    same_file: dict[str, int] = {}
    for row, path in enumerate(known):
        same_file.setdefault(prints[path].digest, row)
    matches = nearest([prints[path] for path in known], [prints[path] for path in asked], distance)
    pairs = []
    for path, match in zip(asked, matches, strict=True):
        copy = same_file.get(prints[path].digest)
        if copy is not None:
            match = Match(copy, 0, False, match.matches if match else 1)
        if match is not None:
            other = known[match.row]
            pairs.append(
                PicturePair(
                    owners[path][0], owners_train[other][0], match.distance, copy is not None, match.mirrored,
                    match.matches, str(path), str(other),
                )
            )  # fmt: skip
    pairs.sort(key=lambda pair: (not pair.exact, pair.distance, pair.benchmark_path))
    exact = sum(pair.exact for pair in pairs)
    return Pictures(
        benchmark=len(asked),
        train=len(known),
        exact=exact,
        near=len(pairs) - exact,
        samples=len({sample for pair in pairs for sample in owners[Path(pair.benchmark_path)]}),
        distance=distance,
        plain=sum(prints[path].bits is None for path in asked),
        unreadable=tuple(unreadable),
        pairs=tuple(pairs),
    )


def texts_of(example: Example) -> list[str]:
    """Its captions; its question with the options, or with each different answer."""
    if example.question is None:
        return list(example.captions)
    endings = [" ".join(example.options)] if example.options else list(dict.fromkeys(example.answers)) or [""]
    return [*example.captions, *(f"{example.question} {ending}" for ending in endings)]


def normalise(text: str) -> list[str]:
    """Lower-case words, without punctuation and however they were spaced."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())


def runs_of(tokens: Sequence[str], words: int) -> Iterator[str]:
    """Every run of `words` words."""
    return (" ".join(tokens[i : i + words]) for i in range(len(tokens) - words + 1))


def _badness(pair: TextPair) -> tuple[bool, float, int]:
    """A long text found whole says more than a short one."""
    return pair.exact, pair.shared, len(pair.run)


def _owners(examples: Iterable[Example]) -> dict[Path, list[str]]:
    """Picture -> the examples that show it."""
    owners: dict[Path, list[str]] = {}
    for example in examples:
        for path in example.pictures:
            owners.setdefault(path, []).append(example.id)
    return owners
