"""`vlm compare` and `vlm overlap`: whether two runs differ, and whether a benchmark was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import AsJson
from vlm.cli.output import emit, say, table, working

if TYPE_CHECKING:
    from PIL import Image

    from vlm.evaluation.comparing.comparison import Comparison, Differs, FigureComparison, Flip, TaskComparison
    from vlm.evaluation.overlap.contamination import Overlap, PicturePair

LONGEST = 300
"""Letters shown of a model's output or a setting."""
SHEET_PAIRS, CELL, MARGIN = 24, (320, 240), 16
"""A contact sheet's most pairs, and the pixels of a picture and of what is between two."""


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A folder of `vlm eval --output`.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another, to be called better or worse than A.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="More of them: every pair is compared.")
    ] = None,
    flips: Annotated[int, typer.Option("--flips", min=0, metavar="N", help="How many changed samples to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say whether two runs differ, by how much, and why; of more, each pair, corrected for there being many."""
    from vlm.evaluation.comparing.compare import compare as compare_runs

    if more:
        _many([run_a, run_b, *more], as_json)
        return
    with working("comparing"):
        found = compare_runs(run_a, run_b, flips)
    if as_json:
        for task in found.tasks:
            for warning in task.warnings:
                say(f"{task.task}: {warning}")
        emit({**asdict(found), "a": found.a.model_dump(mode="json"), "b": found.b.model_dump(mode="json")})
        return
    _print_runs(found, run_a, run_b)
    for task in found.tasks:
        _print_task(task, found.differs)


def _many(runs: list[Path], as_json: bool) -> None:
    from vlm.evaluation.comparing.many import compare_all
    from vlm.evaluation.comparing.verdict import bare, probability, spoken
    from vlm.evaluation.report.tables import shown

    with working("comparing"):
        found = compare_all(runs)
    if as_json:
        emit(asdict(found, dict_factory=_plain))
        return
    for name, model in found.runs.items():
        print(f"{_line(name)}: {_line(model)}")
    for task in found.tasks:
        print(f"\n{task.task}: {task.metric}")
        table(["run", "value [95 %]", "n"], [[name, shown(f), f"{f.n:,}"] for name, f in task.figures.items()])
        rows = []
        for pair in task.pairs:
            if pair.difference is None or pair.p is None or pair.p_of_all is None:
                rows.append([pair.a, pair.b, f"not paired ({pair.note})", "", "", ""])
                continue
            told = [spoken(pair.difference, task.scale), bare(probability(pair.p)), bare(probability(pair.p_of_all))]
            rows.append([pair.a, pair.b, *told, pair.better or "cannot be told"])
        table(["A", "B", "B - A (95 %)", "p", "p of all", "better"], rows)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Parts that are configs as JSON has them."""
    return {
        key: {name: figure.model_dump(mode="json") for name, figure in value.items()} if key == "figures" else value
        for key, value in pairs
    }


def overlap(
    train: Annotated[
        str, typer.Argument(metavar="TRAIN", help="CARD:SPLIT of a data set, conversations, or a folder.")
    ],
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="Likewise, or a benchmark of eval/.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder of data sets; $VLM_DATA by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N of each.")] = None,
    words: Annotated[int, typer.Option("--words", min=1, metavar="N", help="Words in a row that texts share.")] = 8,
    distance: Annotated[
        int, typer.Option("--distance", min=0, max=32, metavar="BITS", help="Bits in which like pictures may differ.")
    ] = 8,
    top: Annotated[int, typer.Option("--top", min=0, metavar="N", help="How many pairs to print of each kind.")] = 10,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="A PNG to make: the pictures side by side.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for a benchmark's texts and pictures in a training set."""
    from vlm.evaluation.overlap.contamination import overlap as look
    from vlm.files import atomic_path

    with working("overlap", 100) as advance:
        found = look(
            train, benchmark, None if data is None else str(data), limit=limit, words=words, distance=distance,
            report=lambda done, total: advance(100 * done // total, "reading pictures"),
        )  # fmt: skip
    if found.pictures.unreadable:
        say(f"{len(found.pictures.unreadable)} pictures left out, such as {found.pictures.unreadable[0]}")
    if sheet is not None and found.pictures.pairs:
        with atomic_path(sheet) as path:
            _sheet(found.pictures.pairs[:SHEET_PAIRS]).save(path, "PNG")
    made = str(sheet) if sheet is not None and found.pictures.pairs else None
    if as_json:
        emit({**asdict(found), "sheet": made})
        return
    _print_overlap(found, top)
    if sheet is not None:
        print(f"sheet: {made or 'not made, as there are no pairs'}")


def _print_overlap(found: Overlap, top: int) -> None:
    texts, pictures = found.texts, found.pictures
    print(
        f"{found.benchmark} ({found.benchmark_samples:,} samples) in {found.train} ({found.train_examples:,} examples)"
    )
    if texts.samples and texts.train:
        short = texts.samples - texts.long_enough
        print(f"texts: {_share(texts.overlapping, texts.samples)} samples share {texts.words} words in a row,")
        print(
            f"  {_share(texts.exact, texts.samples)} have a text that is there whole; {short:,} are shorter than that"
        )
        for text in texts.pairs[:top]:
            kind = "whole" if text.exact else f"{text.shared:.0%}"
            print(f"  {kind}  {_line(text.benchmark)} in {_line(text.train)}: {_line(text.run)}")
    else:
        print("texts: none to compare")
    if pictures.benchmark and pictures.train:
        print(f"pictures: {_share(pictures.exact, pictures.benchmark)} are there byte for byte,")
        near = _share(pictures.near, pictures.benchmark)
        print(f"  {near} look like one that is (at most {pictures.distance} of 64 bits differ)")
        print(f"  {_share(pictures.samples, found.benchmark_samples)} samples show one of these")
        if pictures.plain:
            print(f"  {pictures.plain:,} with too little in them to tell were compared byte for byte only")
        for pair in pictures.pairs[:top]:
            print(f"  {_kind(pair)}  {_line(pair.benchmark_path)}  {_line(pair.train_path)}")
    else:
        print("pictures: none to compare")


def _sheet(pairs: Iterable[PicturePair]) -> Image.Image:
    """Benchmark pictures on the left, the training pictures they look like on the right."""
    from PIL import Image, ImageDraw, ImageOps

    from vlm.cli.demo_sheet import INK, MAT, PAPER, font
    from vlm.media.images import load_image

    pairs = list(pairs)
    (wide, high), label = CELL, 24
    image = Image.new("RGB", (3 * MARGIN + 2 * wide, MARGIN + len(pairs) * (high + label + MARGIN)), PAPER)
    draw = ImageDraw.Draw(image)
    for row, pair in enumerate(pairs):
        top = MARGIN + row * (high + label + MARGIN)
        for column, path in enumerate((pair.benchmark_path, pair.train_path)):
            left = MARGIN + column * (wide + MARGIN)
            image.paste(ImageOps.pad(load_image(path), CELL, color=MAT), (left, top))
            name = _line(Path(path).name)
            text = f"{_kind(pair)}  {name}" if column == 0 else name
            while font("regular", 13).getlength(text) > wide:
                text = text.rstrip("…")[:-1] + "…"
            draw.text((left, top + high + 16), text, font=font("regular", 13), fill=INK, anchor="ls")
    return image


def _kind(pair: PicturePair) -> str:
    return "same file" if pair.exact else f"{pair.distance} bits" + (", mirrored" if pair.mirrored else "")


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.1%})"


def _print_runs(found: Comparison, run_a: Path, run_b: Path) -> None:
    for letter, path, info in (("A", run_a, found.a), ("B", run_b, found.b)):
        print(f"{letter}: {path} ({info.model}, weights {info.weights[:12] or 'unknown'}, vlm {info.version})")
    _print_differs(found.differs)
    for letter, only, unfinished in (
        ("A", found.only_a, found.unfinished_a),
        ("B", found.only_b, found.unfinished_b),
    ):
        if only:
            print(f"only in {letter}: {', '.join(only)}")
        if unfinished:
            print(f"not finished in {letter}: {', '.join(unfinished)}")
    if not found.tasks:
        print("no task is finished in both runs")


def _print_task(task: TaskComparison, told: Sequence[Differs]) -> None:
    """`told` is what differs between the runs as a whole."""
    print(f"\n{task.task}: {task.verdict}")
    for warning in task.warnings:
        print(f"  WARNING: {warning}")
    _print_differs((one for one in task.differs if one not in told), "  ")
    if task.figures:
        columns = ["figure", "A", "B", "B - A (95 %)", "p", "seen from"]
        table(columns, [_row(figure) for figure in task.figures])
    for figure in task.figures:
        if figure.paired is not None:
            unscored = f", {figure.unscored:,} without a score" if figure.unscored else ""
            print(
                f"  {figure.metric}: {figure.better:,} samples better, {figure.worse:,} worse, {figure.same:,} the same"
                f" ({figure.paired.clusters:,} pictures{unscored})"
            )
    print(f"  outputs: {task.outputs_changed:,} of {task.samples:,} differ")
    for flip in task.flips:
        _print_flip(flip)


def _row(figure: FigureComparison) -> list[str]:
    from vlm.evaluation.comparing.verdict import bare, number, probability, spoken

    scale, found = figure.scale, figure.paired
    values = [figure.metric, number(figure.a, scale), number(figure.b, scale)]
    if found is None:
        return [*values, "not paired", "", ""]
    return [
        *values,
        spoken(found.difference, scale),
        bare(probability(found.p)),
        "" if found.detectable is None else number(found.detectable, scale),
    ]


def _print_flip(flip: Flip) -> None:
    print(f"  {flip.change:+.3g}  {_line(flip.id)}  {' '.join(_line(value) for value in flip.inputs.values())}")
    if flip.prompt:
        print(f"    asked: {_line(flip.prompt)}")
    print(f"    A: {_line(flip.a)}\n    B: {_line(flip.b)}")
    if flip.references:
        print(f"    references: {_line(' | '.join(flip.references))}")


def _print_differs(differs: Iterable[Differs], indent: str = "") -> None:
    for one in differs:
        print(f"{indent}differs: {one.what}: {_line(one.a)} -> {_line(one.b)}")


def _line(value: Any) -> str:
    """One printable line of what a model or a file said."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
