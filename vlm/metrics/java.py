"""METEOR and SPICE: the programs that define them, run with Java where both are there.

Neither has another implementation that gives the same figures, so nothing stands in for them: without Java or the files
of pycocoevalcap (`pip install 'vlm[eval]'`) the answer is `NotAvailable` and says why. Nothing is ever downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, Timer
from typing import IO

from vlm.metrics.score import Item, Score, Tokenizer, corpus

START_SECONDS = 300.0
"""Loading METEOR's paraphrases takes seconds on an idle machine and half a minute on a busy one."""
ITEM_SECONDS = {"METEOR": 0.5, "SPICE": 2.0}
"""Several times what one item with five references takes."""
_METEOR_FILES = ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz")
_CORENLP = ("spice/lib/stanford-corenlp-3.6.0.jar", "spice/lib/stanford-corenlp-3.6.0-models.jar")
_SPICE_FILES = ("spice/spice-1.0.jar", *_CORENLP)


@dataclass(frozen=True)
class NotAvailable:
    """In a score's place: why there is none."""

    reason: str

    def __str__(self) -> str:
        return f"not available: {self.reason}"


def meteor(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    timeout: float | None = None,
) -> Score | NotAvailable:
    """METEOR 1.5 (Denkowski and Lavie 2014), equal to `pycocoevalcap.meteor.meteor.Meteor`.

    The value comes from statistics summed over the corpus; it is not the mean of the items. "|||", which separates
    captions on their way to the program, is taken out of them.

    Args:
        references: for each item its reference captions, raw strings.
        hypotheses: one raw caption an item.
        tokenizer: from a string to tokens; the PTB tokenizer by default.
        timeout: seconds after which the program is ended; by default more than the corpus can need.

    Raises `BadInput` for what is wrong with the captions, as the other metrics do; everything else that goes wrong is
    a `NotAvailable`.
    """
    items = corpus(references, hypotheses, tokenizer)
    folder = _found("METEOR", _METEOR_FILES)
    if isinstance(folder, NotAvailable):
        return folder
    seconds = timeout or START_SECONDS + ITEM_SECONDS["METEOR"] * len(items)
    program = [*_JAVA, "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    return _run("METEOR", program, folder / "meteor", seconds, lambda process: _meteor(process, items))


def spice(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    timeout: float | None = None,
) -> Score | NotAvailable:
    """SPICE (Anderson et al. 2016), equal to `pycocoevalcap.spice.spice.Spice`: mean F-measure of scene-graph tuples.

    Needs the two jars of Stanford CoreNLP 3.6.0 in pycocoevalcap's folder, which pycocoevalcap downloads when it runs
    SPICE itself. An item without a score (the program gives null or NaN) counts 0; the reference's mean is then NaN.
    Arguments and errors as for `meteor`.
    """
    items = corpus(references, hypotheses, tokenizer)
    folder = _found("SPICE", _SPICE_FILES)
    if isinstance(folder, NotAvailable):
        return folder
    seconds = timeout or START_SECONDS + ITEM_SECONDS["SPICE"] * len(items)
    rows = [
        {"image_id": i, "test": " ".join(item.hypothesis), "refs": [" ".join(r) for r in item.references]}
        for i, item in enumerate(items)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        given, cache, out = Path(temporary, "in.json"), Path(temporary, "cache"), Path(temporary, "out.json")
        given.write_text(json.dumps(rows), encoding="utf-8")
        cache.mkdir()
        files = [str(given), "-cache", str(cache), "-out", str(out)]
        program = [*_JAVA, "-Xmx8G", "-jar", "spice-1.0.jar", *files, "-subset", "-silent"]
        return _run("SPICE", program, folder / "spice", seconds, lambda process: _spice(process, out, len(items)))


_JAVA = ("java", "-Dfile.encoding=UTF-8")  # else Java 17 and older read and write in the terminal's encoding


def _found(metric: str, files: Sequence[str]) -> Path | NotAvailable:
    """The folder of pycocoevalcap if Java and these files of it are there."""
    if shutil.which("java") is None:
        return NotAvailable(f"{metric} runs on Java, and no `java` was found")
    package = importlib.util.find_spec("pycocoevalcap")
    places = list(package.submodule_search_locations or []) if package else []
    if not places:
        return NotAvailable(f"{metric} comes with pycocoevalcap, which is not installed (pip install 'vlm[eval]')")
    folder = Path(places[0])
    missing = [name for name in files if not (folder / name).is_file()]
    return NotAvailable(f"{metric} needs {', '.join(missing)} in the folder of pycocoevalcap") if missing else folder


def _run(
    metric: str,
    program: list[str],
    folder: Path,
    seconds: float,
    talk: Callable[[subprocess.Popen[bytes]], Score],
) -> Score | NotAvailable:
    """Start the program and let `talk` get the score out of it; whatever goes wrong becomes a reason."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                program, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except OSError as error:
            return NotAvailable(f"{metric}: java does not start: {error}")
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            process.kill()

        timer = Timer(seconds, end)
        timer.start()
        try:
            return talk(process)
        except (OSError, ValueError, KeyError, TypeError) as error:
            process.kill()
            process.wait()
            if late:
                return NotAvailable(f"{metric}: not done after {seconds:.0f} s")
            complaints.seek(0)
            said = complaints.read().decode("utf-8", "replace").strip().splitlines()
            return NotAvailable(f"{metric} failed: {said[-1] if said else error}")
        finally:
            timer.cancel()
            process.kill()
            process.communicate()


def _meteor(process: subprocess.Popen[bytes], items: list[Item]) -> Score:
    assert process.stdin is not None
    assert process.stdout is not None
    # The program answers line by line; writing from another thread keeps two full pipes from waiting for each other.
    questions = "".join(f"SCORE ||| {' ||| '.join(_line(t) for t in [*i.references, i.hypothesis])}\n" for i in items)
    writer = Thread(target=_write, args=(process.stdin, questions), daemon=True)
    writer.start()
    statistics = [_read(process.stdout) for _ in items]
    writer.join()
    _write(process.stdin, f"EVAL ||| {' ||| '.join(statistics)}\n")
    per_item = [float(_read(process.stdout)) for _ in items]
    return Score(float(_read(process.stdout)), per_item)


def _spice(process: subprocess.Popen[bytes], out: Path, count: int) -> Score:
    process.communicate()
    if process.returncode:
        raise ValueError(f"exit code {process.returncode}")
    scores = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(out.read_text(encoding="utf-8"))}
    values = [float(scores[i]) if scores[i] is not None else 0.0 for i in range(count)]
    per_item = [value if value == value else 0.0 for value in values]
    return Score(sum(per_item) / count, per_item)


def _line(tokens: list[str]) -> str:
    return re.sub(r"[\r\n]", " ", " ".join(tokens)).replace("|||", "").replace("  ", " ")


def _write(pipe: IO[bytes], text: str) -> None:
    try:
        pipe.write(text.encode("utf-8", "replace"))
        pipe.flush()
    except OSError:
        pass  # the program has gone; the reader notices and says so


def _read(pipe: IO[bytes]) -> str:
    line = pipe.readline()
    if not line:
        raise ValueError("it ended before it gave all scores")
    return line.decode("utf-8", "replace").strip()
