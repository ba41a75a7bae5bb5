"""Options that several commands share, so that they are called and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ModelName: TypeAlias = Annotated[
    str,
    typer.Option("--model", metavar="NAME", help="A model of `vlm models`, a card's path, a folder, or a hub's name."),
]
Device: TypeAlias = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."),
]
Dtype: TypeAlias = Annotated[
    str, typer.Option("--dtype", metavar="NAME", help="auto (float32), float32, bfloat16 or float16.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Offline: TypeAlias = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
Frames: TypeAlias = Annotated[
    int | None, typer.Option("--frames", min=1, metavar="N", help="Frames looked at of a video, or at most so many.")
]
Sampling: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--sampling",
        metavar="KIND[:KEY=VALUE,...]",
        help="Which frames: uniform, rate, segments, keyframes, scenes, adaptive; by default as the model's card says.",
    ),
]
Tiling: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tiling",
        metavar="KEY=VALUE,...",
        help="How a published model's pictures become tiles: by=content, and with it budget=TOKENS, tolerance=0.1.",
    ),
]
Merge: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--merge",
        metavar="KEY=VALUE,...",
        help="Shares of a card's visual tokens that are left: spatial=0.5 of a frame's, temporal=0.5 of a clip's.",
    ),
]
Column: TypeAlias = Annotated[
    str | None, typer.Option("--column", metavar="NAME", help="A table's column of paths, URLs or pictures.")
]
Below: TypeAlias = Annotated[
    Path | None, typer.Option("--below", metavar="DIR", help="Where relative paths start; else the file's folder.")
]
Width: TypeAlias = Annotated[
    int | None,
    typer.Option("--width", min=1, metavar="N", help="Keep the first N numbers of each vector, of unit length again."),
]
Temperatures: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--temperatures", metavar="FILE", help="A decision.json of `vlm calibrate`; else the one in the model's folder."
    ),
]
Index: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="INDEX", help="The index: a folder, s3://bucket/prefix or http://host:6333/name.", show_default=False
    ),
]
