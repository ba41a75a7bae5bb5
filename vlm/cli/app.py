"""The table of commands: a name, a function, an example each. Nothing slow is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from vlm import __version__
from vlm.cli import (
    bench,
    calibrate,
    captioning,
    classify,
    compare,
    conversing,
    decide,
    demo,
    duplicates,
    evaluation,
    indexing,
    leaderboard,
    media,
    models,
    plan,
    reindexing,
    retrieval,
    routing,
    score,
    serve_all,
    training,
    training_data,
    uploading,
)
from vlm.cli.extending import extended

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

# What has commands of its own stands last, as typer lists it.
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "pull": (models.pull, "vlm pull nano"),
    "models": (models.models, "vlm models"),
    "caption": (captioning.caption, "vlm caption photo.jpg clip.mp4 holiday/"),
    "ask": (media.ask, 'vlm ask photo.jpg "What color is the car?"'),
    "chat": (conversing.chat, 'vlm chat "What is the same in <image> and <image>?" --image a.jpg --image b.jpg'),
    "match": (conversing.match, 'vlm match photo.jpg "a dog in the snow" "a cat on a sofa"'),
    "decide": (decide.decide, 'vlm decide photo.jpg --yes-no "Is it night?" --choice "Which animal?|cat|dog"'),
    "embed": (media.embed, 'vlm embed photos/ --text "a dog in the snow" --to vectors.safetensors'),
    "classify": (classify.classify, "vlm classify photos/ --names dog,cat,horse"),
    "index": (indexing.index, "vlm index photos/ --to photos.index"),
    "upload": (uploading.upload, "vlm upload photos/ --to http://127.0.0.1:8000/holiday"),
    "reindex": (reindexing.reindex, "vlm reindex service --model nano --media photos/"),
    "search": (retrieval.search, 'vlm search photos.index "a dog in the snow" --top 5'),
    "duplicates": (duplicates.duplicates, "vlm duplicates photos.index"),
    "train": (training.train, "vlm train configs/train/nano-words.yaml data=../data steps=600"),
    "routing": (routing.routing, "vlm routing runs/text-moe --to routing.png"),
    "experts": (routing.experts, "vlm experts data/samples --to experts.png"),
    "export": (training.export, "vlm export runs/nano-contrastive runs/nano-instruct --to data/checkpoints/nano"),
    "eval": (evaluation.evaluate, "vlm eval --model nano --tasks flickr8k-retrieval --data ../data --output run"),
    "calibrate": (calibrate.calibrate, "vlm calibrate gqa --split val --data ../data --to decision.json"),
    "compare": (compare.compare, "vlm compare run-a run-b"),
    "leaderboard": (leaderboard.leaderboard, "vlm leaderboard run-a run-b run-c --format csv --to figures.csv"),
    "overlap": (compare.overlap, "vlm overlap flickr8k:train flickr8k-caption --data ../data --sheet pairs.png"),
    "bench": (bench.bench, "vlm bench metrics"),
    "plan": (plan.plan, "vlm plan configs/scale/billion.yaml chosen.items=1e8 --to scale.png"),
    "demo": (demo.demo, "vlm demo --to demo"),
    "data": (training_data.app, "vlm data check train.jsonl"),
    "serve": (serve_all.app, "vlm serve retrieval --model nano --root service"),
    "score": (score.app, "vlm score vqa --predictions answers.json --answers annotations.json --protocol vqav2"),
}
for _name, (_function, _example) in COMMANDS.items():
    _epilog = f"\b\nExample:\n  {_example}"
    if isinstance(_function, typer.Typer):
        for _inner in _function.registered_commands:
            assert _inner.callback is not None
            _inner.callback = extended(_inner.callback)
        app.add_typer(_function, name=_name, epilog=_epilog)
    else:
        app.command(_name, epilog=_epilog)(extended(_function))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"vlm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@extended
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Vision-language models: captions, answers and search over pictures and videos.

    Exit codes: 0 done, 1 failed, 2 bad usage or bad input (one line on stderr says what and where).
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
