"""`vlm bench metrics`: the metrics against their references, where these are installed.

References: pycocoevalcap (with Java) for captions; the VQA code that salesforce-lavis carries, an older state of the
official one (which is Python 2); for recall clip_benchmark, and one argsort a row as BLIP's retrieval evaluation has
it. Inputs are made up, of the size of COCO's 5,000-picture test: nothing has to be downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vlm.bench.timing import Missing, Result, Say, alternate, in_new_process, peak_megabytes
from vlm.metrics.caption import cider, ptb_tokenize
from vlm.metrics.ptb_tokenizer import forget
from vlm.metrics.retrieval import recall_from_vectors
from vlm.metrics.vqa import vqa_accuracy

IMAGES, CAPTIONS, QUESTIONS, WIDTH = 5000, 5, 20_000, 256


def run(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Result]:
    """Each comparison as soon as it is made. Where both sides' results can be compared they must be equal."""
    for benchmark in BENCHMARKS:
        say(benchmark.__name__.strip("_").replace("_", " "))
        yield in_new_process(benchmark, rounds)


def captions(seed: int = 0) -> list[list[str]]:
    """Made-up captions: words by Zipf's law over a vocabulary of 8,000, with punctuation and a possessive here and
    there, 8 to 16 words each."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfw"))
    vocabulary = ["".join(rng.choice(letters, size=rng.integers(2, 9))) for _ in range(8000)]
    ends, marks = (".", " .", "", "!"), ("", "", "", "", "", "", ",", "'s")
    picks = random.Random(seed)

    def sentence() -> str:
        words = [vocabulary[min(z, 8000) - 1] for z in rng.zipf(1.3, size=rng.integers(8, 17))]
        return "A " + " ".join(word + picks.choice(marks) for word in words) + picks.choice(ends)

    return [[sentence() for _ in range(CAPTIONS)] for _ in range(IMAGES)]


def _tokenizer(rounds: int) -> Result:
    what, peer = f"PTB tokenizer, {IMAGES} x {CAPTIONS} captions", "pycocoevalcap (Java)"
    if (why := _no_coco()) is not None:
        return Missing(what, peer, why)
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = captions()
    reference = PTBTokenizer()
    rows = {i: [{"caption": text} for text in group] for i, group in enumerate(texts)}

    def ours() -> list[list[str]]:
        forget()  # each round begins as a new process does
        return [ptb_tokenize(group) for group in texts]

    def theirs() -> list[list[str]]:
        with contextlib.redirect_stderr(io.StringIO()):
            tokens = reference.tokenize(rows)
        return [tokens[i] for i in range(len(texts))]

    _same(what, ours(), theirs())
    return alternate(what, peer, ours, theirs, rounds)


def _cider(rounds: int) -> Result:
    what, peer = f"CIDEr-D of tokens, {IMAGES} x {CAPTIONS} references", "pycocoevalcap"
    if importlib.util.find_spec("pycocoevalcap") is None:
        return Missing(what, peer, "not installed (pip install pycocoevalcap)")
    from pycocoevalcap.cider.cider import Cider

    references = [ptb_tokenize(group) for group in captions()]
    said = ptb_tokenize([group[0] for group in captions(seed=1)])
    said = [group[1] if i % 2 else text for i, (group, text) in enumerate(zip(references, said, strict=True))]
    gts, res = dict(enumerate(references)), {i: [text] for i, text in enumerate(said)}

    def ours() -> float:
        return cider(references, said, tokenizer=str.split).value

    def theirs() -> float:
        return float(Cider().compute_score(gts, res)[0])

    _same(what, round(ours(), 9), round(theirs(), 9))
    return alternate(what, peer, ours, theirs, rounds)


def _vqa(rounds: int) -> Result:
    what, peer = f"VQA v2 accuracy, {QUESTIONS} questions", "salesforce-lavis"
    module = _file_of("lavis", "common/vqa_tools/vqa_eval.py")
    if module is None:
        return Missing(what, peer, "not installed (pip install --no-deps salesforce-lavis)")
    picks = random.Random(0)
    # Words on which its rules, an older state of the official ones, agree with today's: it leaves the annotators'
    # articles and numbers as they are.
    pool = ["yes", "no", "2", "red car", "dog", "don't know", "black and white", "on table", "frisbee", "100"]
    answers = [[picks.choice(pool[: picks.randint(1, len(pool))]) for _ in range(10)] for _ in range(QUESTIONS)]
    said = [picks.choice(pool) for _ in range(QUESTIONS)]

    def ours() -> float:
        return sum(vqa_accuracy(text, group) for text, group in zip(said, answers, strict=True)) / QUESTIONS

    # The official code changes its input, so each round has its own.
    inputs = [_official(said, answers) for _ in range(rounds + 2)]

    def theirs() -> float:
        truth, result = inputs.pop()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = module.VQAEval(truth, result, n=9)
            evaluation.evaluate()
        return float(evaluation.accuracy["overall"]) / 100

    _same(what, round(ours(), 7), round(theirs(), 7))
    return alternate(what, peer, ours, theirs, rounds)


def _official(said: list[str], answers: list[list[str]]) -> tuple[_Answers, _Answers]:
    types = {"question_type": "-", "answer_type": "-"}
    truth = {
        i: {"answers": [{"answer": a, "answer_id": n} for n, a in enumerate(group)], **types}
        for i, group in enumerate(answers)
    }
    return _Answers(truth), _Answers({i: {"answer": text} for i, text in enumerate(said)})


class _Answers:
    """What the official code asks of an annotation file."""

    def __init__(self, qa: dict[int, dict[str, Any]]):
        self.qa = qa

    def getQuesIds(self) -> list[int]:
        return list(self.qa)


def _vectors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((IMAGES, WIDTH), dtype=np.float32)
    texts = np.repeat(images, CAPTIONS, axis=0) + 4 * rng.standard_normal((IMAGES * CAPTIONS, WIDTH), dtype=np.float32)
    return texts, images, np.repeat(np.arange(IMAGES), CAPTIONS)


def _recall_clip_benchmark(rounds: int) -> Result:
    what, peer = f"recall@1/5/10, {IMAGES} x {IMAGES * CAPTIONS}, both ways", "clip_benchmark"
    module = _file_of("clip_benchmark", "metrics/zeroshot_retrieval.py")
    if module is None:
        return Missing(what, peer, "not installed (pip install --no-deps clip-benchmark)")
    import torch

    texts, images, image = _vectors()

    def ours() -> list[float]:
        return _recalls(texts, images, image)

    def theirs() -> list[float]:
        scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
        pairs = torch.zeros_like(scores, dtype=torch.bool)
        pairs[torch.arange(len(scores)), torch.from_numpy(image)] = True
        both = ((scores, pairs), (scores.T, pairs.T))
        return [
            float((module.batchify(module.recall_at_k, s, p, 64, "cpu", k=k) > 0).float().mean())
            for s, p in both
            for k in (1, 5, 10)
        ]

    memory = _memory(ours, theirs)  # first: a process whose threads have run is not to be forked
    _same(what, np.round(ours(), 4).tolist(), np.round(theirs(), 4).tolist())
    return alternate(what, peer, ours, theirs, rounds, memory)


def _recall_argsort(rounds: int) -> Result:
    what, peer = f"recall@1/5/10, {IMAGES} x {IMAGES * CAPTIONS}, both ways", "an argsort a row (as BLIP)"
    texts, images, image = _vectors()

    def ours() -> list[float]:
        return _recalls(texts, images, image)

    def theirs() -> list[float]:
        scores_TI = texts @ images.T
        ranks_T = np.array([np.where(row.argsort()[::-1] == i)[0][0] for row, i in zip(scores_TI, image, strict=True)])
        ranks_I = np.empty(IMAGES)
        for i, row in enumerate(scores_TI.T):
            place = row.argsort()[::-1]
            ranks_I[i] = min(np.where(place == text)[0][0] for text in range(i * CAPTIONS, (i + 1) * CAPTIONS))
        return [float((ranks < k).mean()) for ranks in (ranks_T, ranks_I) for k in (1, 5, 10)]

    memory = _memory(ours, theirs)  # first: a process whose threads have run is not to be forked
    _same(what, np.round(ours(), 4).tolist(), np.round(theirs(), 4).tolist())
    return alternate(what, peer, ours, theirs, rounds, memory)


def _recalls(texts: np.ndarray, images: np.ndarray, image: np.ndarray) -> list[float]:
    report = recall_from_vectors(texts, images, image)
    return [*report.text_to_image.recall.values(), *report.image_to_text.recall.values()]


def _memory(ours: Callable[[], object], theirs: Callable[[], object]) -> str:
    mine, other = peak_megabytes(ours), peak_megabytes(theirs)
    return "" if mine is None or other is None else f"memory {mine:.0f} MB, peer {other:.0f} MB"


def _same(what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise AssertionError(f"{what}: ours and the reference's results differ")


def _no_coco() -> str | None:
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "not installed (pip install pycocoevalcap)"
    return None if shutil.which("java") else "no java on the PATH"


def _file_of(package: str, path: str) -> ModuleType | None:
    """One file of an installed package as a module, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / path
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"_bench_{package}", file)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARKS = (_tokenizer, _cider, _vqa, _recall_clip_benchmark, _recall_argsort)
