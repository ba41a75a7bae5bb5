"""`vlm train`, `vlm export` and `vlm eval`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vlm import assets, config
from vlm.cli.options import AsJson, ModelName, Offline
from vlm.cli.output import emit, say, table, working


def train(
    recipe_name: Annotated[str, typer.Argument(metavar="CONFIG", help="A recipe: a name in configs/train, or a path.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to take instead of the recipe's.")
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Train a stage by its recipe.

    A run that was cut off goes on from its last checkpoint.
    """
    from vlm.training.recipe import Recipe

    recipe = config.load(Recipe, assets.find_card("configs/train", recipe_name, "recipe"), overrides)
    run = Path(recipe.output)
    with working(f"training {run.name}", recipe.steps) as advance:
        from vlm.training.loop import train as train_stage
        from vlm.training.stages import build_stage

        stage = build_stage(recipe, say, offline)
        figures = train_stage(recipe, stage, run, lambda done, total, text: advance(done, f"{run.name}: {text}"))
    written = {"weights": "weights.safetensors", "curve": "curve.png", "log": "log.jsonl"}
    places = {kind: str(run / file) for kind, file in written.items()}
    if as_json:
        emit({"output": str(run), **places, "figures": figures})
        return
    for kind, place in places.items():
        print(f"{kind}: {place}")
    print(", ".join(f"{name} {value}" for name, value in figures.items()))


def export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, in their order.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder; a model card names it as `trained`.")],
    as_json: AsJson = False,
) -> None:
    """Make one small file of what runs trained."""
    with working("export"):
        from vlm.checkpoints.trained import release

        path = release(runs, to)
    size = round(path.stat().st_size / 1e6, 1)
    if as_json:
        emit({"weights": str(path), "megabytes": size})
    else:
        print(f"{path}: {size} MB")


def evaluate(
    tasks: Annotated[str, typer.Option("--tasks", metavar="A,B", help="Benchmarks: cards in eval/, or paths.")],
    model: ModelName = "nano",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder of data sets; $VLM_DATA by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N examples.")] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Measure a model on benchmarks."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("expected at least one benchmark", param_hint="--tasks")
    assets.find_card("configs/models", model, "model")
    if offline:
        os.environ["VLM_OFFLINE"] = "1"
    with working("evaluation", 100) as advance:
        from vlm.evaluation.run import evaluate as run

        def report(task: str, done: int, total: int) -> None:
            """Every task counts alike in the estimate."""
            advance(round(100 * (names.index(task) + done / total) / len(names)) if task in names else -1, task)

        results = run(model, names, None if data is None else str(data), limit, report)
    if as_json:
        emit({"results": results})
        return
    rows = []
    for result in results:
        figures = {key: value for key, value in result.items() if key != "task"}
        shown = (
            f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
        )
        rows.append([str(result["task"]), "\n".join(shown)])
    table(["task", "figures"], rows)
