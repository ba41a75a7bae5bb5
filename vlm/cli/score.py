"""`vlm score`: the reference's figures for files that any system wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from vlm.cli.options import AsJson
from vlm.cli.output import emit, say, table, working

if TYPE_CHECKING:
    from vlm.evaluation.scoring.scores import Scored

app = typer.Typer(
    rich_markup_mode=None,
    help="Score files of any system: captions, answers, similarities, classes or dense captions.\n\n"
    "Nothing is scored if the files do not fit each other: what is wrong is a line each on stderr; the exit code is 2.",
)
PerItem: TypeAlias = Annotated[bool, typer.Option("--per-item", help="Also each item's own scores.")]


@app.command(
    epilog="\b\nExample:\n  vlm score caption --hypotheses captions.json --references references.json --per-item --json"
)
def caption(
    hypotheses: Annotated[Path, typer.Option("--hypotheses", metavar="FILE", help="JSON: {id: caption}.")],
    references: Annotated[Path, typer.Option("--references", metavar="FILE", help="JSON: {id: [captions]}.")],
    meteor: Annotated[bool, typer.Option("--meteor", help="METEOR too (Java; minutes for thousands).")] = False,
    spice: Annotated[bool, typer.Option("--spice", help="SPICE too (Java and CoreNLP; slower still).")] = False,
    per_item: PerItem = False,
    as_json: AsJson = False,
) -> None:
    """BLEU, ROUGE-L, CIDEr and, when asked for, METEOR and SPICE, as the COCO caption evaluation has them.

    Captions are raw text; they are tokenised inside. Scores are fractions, CIDEr goes up to 10.
    """
    from vlm.evaluation.scoring.scores import score_captions

    with working("scores") as advance, _every_problem():
        scored = score_captions(
            hypotheses,
            references,
            with_meteor=meteor,
            with_spice=spice,
            tell=lambda metric: advance(-1, f"scores: {metric}"),
        )
    _show(scored, ["metric", "value"], _rows(scored), "{:.4f}", per_item, as_json)


@app.command(
    epilog="\b\nExample:\n  vlm score vqa --predictions answers.json --answers annotations.json --protocol vqav2 --json"
)
def vqa(
    predictions: Annotated[Path, typer.Option("--predictions", metavar="FILE", help="JSON: {question_id: answer}.")],
    answers: Annotated[Path, typer.Option("--answers", metavar="FILE", help="JSON: the official annotations.")],
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="NAME", help="vqav2, textvqa, okvqa, vizwiz, gqa, anls, relaxed, exact, pope."
        ),
    ],
    per_item: PerItem = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy of answers, in percent, by a benchmark's own rule; also by type where the annotations name types.

    Annotations are objects with question_id and answers, as a list or under "annotations"; {question_id: [answers]}
    will do too.
    """
    from vlm.evaluation.scoring.scores import score_answers

    with working("scores"), _every_problem():
        scored = score_answers(predictions, answers, protocol)
    flat = {name: value for name, value in scored.metrics.items() if name != "by_type"} | scored.metrics["by_type"]
    _show(scored, ["", "percent"], [[k, f"{v:.2f}"] for k, v in flat.items()], "{:.2f}", per_item, as_json)


@app.command(epilog="\b\nExample:\n  vlm score retrieval --similarity scores.npz --json")
def retrieval(
    similarity: Annotated[
        Path, typer.Option("--similarity", metavar="FILE", help=".npz with sim [texts, images] and txt2img [texts].")
    ],
    as_json: AsJson = False,
) -> None:
    """Recall at 1, 5 and 10 as shares of the queries, ranks, mAP and nDCG, from texts to images and back.

    Equal similarities are counted three ways: what is right comes first among its equals (optimistic), last
    (pessimistic), or in the middle (mean).
    """
    from vlm.evaluation.scoring.scores import score_retrieval

    with working("scores"), _every_problem():
        scored = score_retrieval(similarity)
    rows = [
        [way, name, *(f"{values[t]:.2f}" for t in ("mean", "optimistic", "pessimistic"))]
        for way, figures in scored.metrics.items()
        for name, values in figures.items()
    ]
    _show(scored, ["", "metric", "mean", "optimistic", "pessimistic"], rows, "{}", False, as_json)


@app.command(epilog="\b\nExample:\n  vlm score classification --scores scores.npz --json")
def classification(
    scores: Annotated[
        Path,
        typer.Option(
            "--scores", metavar="FILE", help=".npz with scores [items, classes], labels [items] or [items, classes]."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Accuracy, class recall and calibration of one label an item; mean average precision of several (0 and 1).

    Figures are fractions. Equal scores share what they win.
    """
    from vlm.evaluation.scoring.classes import score_classes

    with working("scores"), _every_problem():
        scored = score_classes(scores)
    _show(scored, ["metric", "value"], _rows(scored), "{}", False, as_json)


@app.command(
    epilog="\b\nExample:\n  vlm score dense --hypotheses moments.json --references val_1.json --references val_2.json"
)
def dense(
    hypotheses: Annotated[
        Path, typer.Option("--hypotheses", metavar="FILE", help="JSON: ActivityNet's results of dense captioning.")
    ],
    references: Annotated[
        list[Path], typer.Option("--references", metavar="FILE", help="JSON: an annotator's moments; may be repeated.")
    ],
    soda: Annotated[bool, typer.Option("--soda", help="SODA_c too, by METEOR (Java).")] = False,
    as_json: AsJson = False,
) -> None:
    """Captions with times, as densevid_eval scores them: the mean over IoU 0.3, 0.5, 0.7 and 0.9.

    Figures are fractions, CIDEr goes up to 10. densevid_eval's METEOR would start Java once a video, and is left out.
    """
    from vlm.evaluation.scoring.dense import score_dense

    with working("scores") as advance, _every_problem():
        scored = score_dense(
            hypotheses, references, with_soda=soda, tell=lambda metric: advance(-1, f"scores: {metric}")
        )
    _show(scored, ["metric", "value"], _rows(scored), "{}", False, as_json)


def _rows(scored: Scored) -> list[list[str]]:
    rows = [[name, f"{value:.4f}"] for name, value in scored.metrics.items()]
    return rows + [[name, f"not available: {why}"] for name, why in scored.not_available.items()]


def _show(scored: Scored, columns: list[str], rows: list[list[str]], form: str, per_item: bool, as_json: bool) -> None:
    for warning in scored.warnings:
        say(warning)
    if as_json:
        found: dict[str, Any] = {"metrics": scored.metrics}
        if per_item:
            found["per_item"] = scored.per_item
        if scored.not_available:
            found["not_available"] = scored.not_available
        emit(found | ({"warnings": scored.warnings} if scored.warnings else {}))
        return
    table(columns, rows)
    if per_item:
        items = {i: v if isinstance(v, dict) else {"percent": v} for i, v in scored.per_item.items()}
        names = list(next(iter(items.values())))
        table(["id", *names], [[i, *(form.format(v[name]) for name in names)] for i, v in items.items()])


@contextmanager
def _every_problem() -> Iterator[None]:
    """All that is wrong with the files, a line each."""
    from vlm.evaluation.scoring.files import BadFiles

    try:
        yield
    except BadFiles as error:
        for line in error.lines:
            say(line)
        raise typer.Exit(error.exit_code) from None
