"""`vlm demo`: captions, answers and searches over the samples (or pictures of your own), on one sheet and one page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm.cli.demo_report import Report, Searched, Shown
from vlm.cli.options import AsJson, ModelName, Offline
from vlm.cli.output import emit, working
from vlm.cli.session import expand, lazy_model, map_media, sampling_of
from vlm.cli.told import Told
from vlm.errors import BadInput
from vlm.files import name_text

if TYPE_CHECKING:
    from PIL import Image

    from vlm.api import Model
    from vlm.media.open import Media
    from vlm.media.video.sampling.base import Sampler

QUESTIONS_EACH = 2
HITS = 5
THUMBNAIL = 640
"""Longer side of what is kept of a picture, in pixels."""
SAMPLE_QUERIES = ("an animal in the snow", "something to drink", "a city at night", "a smiling woman", "a high tower")
SAMPLE_PICTURE = "lemurs.jpg"
OWN_QUESTIONS = ("What is in the picture?", "Are there people?")
OWN_QUERIES = ("a person", "an animal", "a building", "something green")


def demo(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where to write the sheet and the page.")] = Path(
        "demo"
    ),
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Pictures of your own instead of the samples.")
    ] = None,
    model: ModelName = "nano",
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Caption, ask about and search the samples.

    Writes a contact sheet (PNG), a page that needs nothing beside it (HTML) and the results (JSON).
    """
    began = time.monotonic()
    if to.exists() and not to.is_dir():
        raise BadInput(f"{to}: expected a folder, got a file")
    told = Told()
    questions = samples() if images is None else own_pictures(images, told)
    load = lazy_model(model, offline)
    report = look(questions, load, sampling_of(model), told, own=images is not None)
    left_out = told.say()
    with working("drawing"):
        written = write(report, to)
    figures = {"seconds": round(time.monotonic() - began, 1), "peak_memory_gb": round(peak_memory() / 1e9, 2)}
    clips = sum(1 for item in report.shown if item.times)
    counts = {"pictures": len(report.shown) - clips, "clips": clips, "searches": len(report.searched)}
    if as_json:
        emit({**{kind: str(path) for kind, path in written.items()}, **counts, **figures, **left_out})
    else:
        print(f"captioned, asked about and searched {counts['pictures']} pictures and {clips} clips with {model}")
        for kind, path in written.items():
            print(f"{kind:>8}: {path}")
        print(f"{figures['seconds']} s, at most {figures['peak_memory_gb']} GB of memory")
    told.end()


def samples() -> dict[str, list[str]]:
    """The shipped samples: path -> questions."""
    from vlm import assets
    from vlm.config import read_yaml

    folder = assets.root() / "data" / "samples"
    return {
        str(folder / sample["file"]): [row["question"] for row in sample["questions"][:QUESTIONS_EACH]]
        for sample in read_yaml(folder / "samples.yaml")
    }


def own_pictures(folder: Path, told: Told) -> dict[str, list[str]]:
    """A user's pictures and videos with questions that fit any: path -> questions."""
    found = expand([str(folder)], told)
    if not found:
        raise BadInput(told.skipped[0].reason)
    return {path: list(OWN_QUESTIONS) for path in found}


def look(
    questions: dict[str, list[str]], load: Callable[[], Model], sampling: Callable[[], Sampler], told: Told, own: bool
) -> Report:
    """Caption, answer and search; what could not be read is told. Raises `BadInput` where nothing could."""

    def describe(media: Sequence[Media]) -> list[Shown]:
        model = load()
        asked = [questions[item.source] for item in media]
        captions, vectors = model.caption(media), model.embed_images(media)
        pairs = [(item, question) for item, rows in zip(media, asked, strict=True) for question in rows]
        answers = iter(model.answer([item for item, _ in pairs], [question for _, question in pairs]))
        return [
            Shown(
                name_text(item.source),
                tuple(_thumbnail(frame) for frame in item.frames),
                item.times,
                caption,
                tuple((question, next(answers)) for question in rows),
                vector,
            )
            for item, rows, caption, vector in zip(media, asked, captions, vectors, strict=True)
        ]

    done = map_media(list(questions), describe, told, label="captions and answers", sampling=sampling)
    if not done:
        told.say()
        raise BadInput("none of the pictures could be read")
    shown = [item for _, item in done]
    with working("searches"):
        searched = search(load(), shown, OWN_QUERIES if own else SAMPLE_QUERIES)
    return Report(load().name, shown, searched)


def search(model: Model, shown: list[Shown], queries: Sequence[str]) -> list[Searched]:
    """Each text, and one of the pictures, looked for among `shown`; the picture does not find itself."""
    import numpy as np

    from vlm.index.flat import FlatIndex

    by_path = {item.path: item for item in shown}
    index = FlatIndex(Path("demo"), len(shown[0].vector), model.name)
    index.upsert(list(by_path), np.stack([item.vector for item in shown]))
    found = [
        Searched(query, None, tuple((by_path[hit.id], hit.score) for hit in hits))
        for query, hits in zip(queries, index.search(model.embed_texts(queries), HITS), strict=True)
    ]
    picture = next((item for item in shown if item.name == SAMPLE_PICTURE), shown[0])
    others = [hit for hit in index.search(picture.vector[None], HITS + 1)[0] if hit.id != picture.path][:HITS]
    found.append(Searched(picture.path, picture, tuple((by_path[hit.id], hit.score) for hit in others)))
    return found


def write(report: Report, folder: Path) -> dict[str, Path]:
    """The sheet, the page and the results, each written whole or not at all; other files there are left alone."""
    from vlm.cli.demo_page import page
    from vlm.cli.demo_sheet import sheet
    from vlm.files import atomic_path, atomic_write

    written = {"sheet": folder / "contact_sheet.png", "page": folder / "index.html", "results": folder / "results.json"}
    with atomic_path(written["sheet"]) as path:
        sheet(report).save(path, format="PNG")
    atomic_write(written["page"], page(report))
    atomic_write(written["results"], json.dumps(report.as_dict(), indent=1) + "\n")
    return written


def peak_memory() -> int:
    """The most bytes of memory this process has held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _thumbnail(frame: Image.Image) -> Image.Image:
    small = frame.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return small
