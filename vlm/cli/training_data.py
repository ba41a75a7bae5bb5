"""`vlm data`: conversations to learn from, made of what there is, and checked."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm.cli.options import AsJson, Offline
from vlm.cli.output import emit, say, table, working
from vlm.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlm.datasets.checking import Checked
    from vlm.datasets.conversations import Sample
    from vlm.media.open import Media

app = typer.Typer(
    help="Conversations to learn from: check them, and make them of what there is.", rich_markup_mode=None
)
TOLD = 10
"""Lines that cannot be used and are named on a terminal; `--json` names up to 1,000."""


@app.command("check", epilog="\b\nExample:\n  vlm data check train.jsonl --sheet sheet.png --model nano")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Conversations, JSON lines.")],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="PNG", help="Write a contact sheet of some of them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Count tokens as this model reads them.")
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Check every line, picture and clip of a file of conversations; the exit code is 2 where some cannot be used."""
    from vlm.datasets.checking import check as check_file
    from vlm.datasets.conversations import ConversationFile
    from vlm.media.open import open_media

    found_in = ConversationFile(file)
    length = None if model is None else _length(model, offline)
    with working("checking", len(found_in)) as advance:
        found = check_file(found_in, open_media, length, lambda done: advance(done, ""))
    if sheet is not None and found.shown:
        from vlm.cli.conversation_sheet import conversation_sheet

        sheet.parent.mkdir(parents=True, exist_ok=True)
        conversation_sheet(f"{file.name} · {found.conversations:,} conversations", found.shown).save(sheet, "PNG")
    figures = _figures(found)
    if as_json:
        faults = [{"line": fault.line, "reason": fault.reason} for fault in found.faults]
        written = {"sheet": str(sheet)} if sheet is not None and found.shown else {}
        emit({"file": str(file), **figures, "faulty": found.faulty, "faults": faults, **written})
    else:
        table(["what", "number"], [[name.replace("_", " "), f"{value:,}"] for name, value in figures.items()])
        for fault in found.faults[:TOLD]:
            say(f"{file}:{fault.line}: {fault.reason}")
        if found.faulty > TOLD:
            say(f"{file}: {found.faulty - TOLD} more lines cannot be used; --json names up to 1,000")
        if sheet is not None and found.shown:
            print(f"sheet: {sheet}")
    if found.faulty or not found.conversations:
        raise typer.Exit(2)


@app.command(
    "convert", epilog="\b\nExample:\n  vlm data convert photos.csv --image file --answer label --to train.jsonl"
)
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A table, LLaVA's or ShareGPT's JSON, or a data set as CARD:SPLIT."),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The JSON lines to write.")],
    image: Annotated[
        str | None, typer.Option("--image", metavar="COLUMN", help="A table's column of pictures or clips.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", metavar="COLUMN", help="A table's column of answers or captions.")
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", metavar="COLUMN", help="A table's column of questions.")
    ] = None,
    asked: Annotated[
        str | None, typer.Option("--ask", metavar="TEXT", help="The question of all rows, where no column has one.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where a table's paths begin; beside it by default.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only a table's rows of this value; may be repeated."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder of data sets; $VLM_DATA by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a file of conversations of what there is. Records that cannot be used are told, and the exit code is 2."""
    from vlm.datasets import importing

    left_out: list[tuple[str, str]] = []

    def tell(where: str, reason: str) -> None:
        left_out.append((where, reason))

    path = Path(source).expanduser()
    if to.suffix != ".jsonl":
        raise BadInput(f"{to}: expected a file of .jsonl, got {to.suffix or 'no suffix'}")
    if question is not None and asked is not None:
        raise BadInput("--question, --ask: expected one of them")
    if path.is_file() and image is not None and answer is not None:
        home = path.parent if images is None else images
        only = dict(_pair(one) for one in where or ())
        columns = importing.Columns(image, answer, question, asked, only)
        records = importing.table_conversations(path, columns, home, tell)
    elif path.is_file() and path.suffix in (".json", ".jsonl"):
        records = importing.shared_conversations(path, tell)
    elif path.is_file():
        raise BadInput(f"{path}: expected --image and --answer with the columns of a table")
    else:
        records = _of_card(source, None if data is None else str(data), asked)
    try:
        with working("converting"):
            count = importing.write_conversations(records, to)
    finally:
        for record, reason in left_out[:TOLD]:
            say(f"{record}: {reason}")
        if len(left_out) > TOLD:
            say(f"{source}: {len(left_out) - TOLD} more records were left out")
    if as_json:
        skipped = [{"record": record, "reason": reason} for record, reason in left_out]
        emit({"written": str(to), "conversations": count, **({"skipped": skipped} if skipped else {})})
    else:
        print(f"{to}: {count} conversations")
    if left_out:
        raise typer.Exit(2)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--where: expected COLUMN=VALUE, got {text!r}")
    return name, value


def _of_card(source: str, data: str | None, asked: str | None) -> Any:
    from vlm.datasets.examples import data_folder, load_card
    from vlm.datasets.importing import conversations_of

    name, _, split = source.rpartition(":")
    if not name:
        raise BadInput(f"{source}: no such file; expected one, or a data set as CARD:SPLIT")
    card = load_card(name)
    examples = card.read(None if card.wheel is not None and data is None else data_folder(data), split, report=say)
    return (record for example in examples for record in conversations_of(example, asked))


def _length(model: str, offline: bool) -> Callable[[Sample, list[Media]], int]:
    """Of a conversation with its last reply, in tokens."""
    from vlm.cli.session import lazy_model

    loaded = lazy_model(model, offline)()
    processor, context = loaded.processor, loaded.model.language.cfg.context

    def length(sample: Sample, media: list[Media]) -> int:
        last = sample.learned[-1]
        before, shown = sample.before(last)
        reply = processor.reply(sample.messages[last].text)
        tokens = len(processor.prompt(before, media[:shown]).ids) + len(reply)
        if tokens > context:
            raise BadInput(f"{tokens} tokens; model {loaded.name} reads at most {context}")
        return tokens

    return length


def _figures(found: Checked) -> dict[str, int]:
    figures = {
        "conversations": found.conversations,
        "replies": found.replies,
        "pictures": found.pictures,
        "clips": found.clips,
        "of_several_pictures": found.several,
        "of_several_replies": found.turns,
    }
    if found.tokens:
        figures |= {"tokens": sum(found.tokens), "median": int(median(found.tokens)), "longest": max(found.tokens)}
    return figures
