"""`vlm classify`: which of some names fits a picture best."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm.cli.options import AsJson, Device, Dtype, Frames, ModelName, Offline, Sampling
from vlm.cli.output import emit
from vlm.cli.session import expand, lazy_model, map_media, sampling_of
from vlm.cli.told import Told

SHOWN = 5


def classify(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Pictures, videos, URLs, or folders of them.")],
    names: Annotated[
        str, typer.Option("--names", metavar="A,B,...", help="The classes, by their names.", show_default=False)
    ],
    template: Annotated[
        list[str] | None,
        typer.Option("--template", metavar="TEXT", help="A sentence with {label} for the name; may be repeated."),
    ] = None,
    model: ModelName = "nano",
    frames: Frames = None,
    sampling: Sampling = None,
    as_json: AsJson = False,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Tell which of some classes a picture or video shows, without training.

    A class is its name in every template. The probabilities are among the classes given: one of them always wins.
    """
    from vlm.heads.classification import TEMPLATES, sentences

    classes = [name.strip() for name in names.split(",")]
    templates = tuple(template or TEMPLATES)
    sentences(classes, templates)  # what cannot be asked is said before anything slow begins
    load = lazy_model(model, offline, device=device, dtype=dtype, only=("images", "texts"))
    chosen = sampling_of(model, frames, sampling)
    told = Told()
    inputs = expand(paths, told)
    if inputs:
        asked = sentences(classes, templates)
        told.texts(asked, load().text_notes(asked))
    done = map_media(
        inputs,
        lambda media: load().classify(media, classes, templates=templates),
        told,
        label="classes",
        offline=offline,
        sampling=chosen,
    )
    left_out = told.say()
    if as_json:
        rows = [
            {"input": item, "classes": [{"name": c.name, "probability": round(c.probability, 6)} for c in chances]}
            for item, chances in done
        ]
        emit({"results": rows, **left_out})
    else:
        for item, chances in done:
            best = ", ".join(f"{c.name} {c.probability:.3f}" for c in chances[:SHOWN])
            print(f"{item}: {best}" if len(inputs) > 1 else best)
    told.end()
