"""`vlm train` and `vlm export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm import assets, config
from vlm.cli.options import AsJson, Offline
from vlm.cli.output import emit, say, working
from vlm.cli.session import lazy_model
from vlm.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def train(
    recipe_name: Annotated[str, typer.Argument(metavar="CONFIG", help="A recipe: a name in configs/train, or a path.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to take instead of the recipe's.")
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Train a stage by its recipe.

    A run that was cut off goes on from its last checkpoint. A contrastive stage takes several processes, each with a
    share of the batch: torchrun --no-python --nproc-per-node 2 vlm train CONFIG.
    """
    from vlm.training.recipe import Recipe

    recipe = config.load(Recipe, assets.find_card("configs/train", recipe_name, "recipe"), overrides)
    run = Path(recipe.output)
    with working(f"training {run.name}", recipe.steps) as advance:
        from vlm.training import distributed as parallel
        from vlm.training.loop import train as train_stage
        from vlm.training.objectives.contrastive.config import ContrastiveObjective
        from vlm.training.stages import build_stage

        parallel.join()
        if parallel.place()[1] > 1 and not isinstance(recipe.objective, ContrastiveObjective):
            raise BadInput(f"{recipe_name}: expected one process, since only a contrastive objective shares its batch")
        with parallel.first_alone():
            if recipe.overlap is not None:
                from vlm.evaluation.overlap.before_training import check_overlap

                tell = say if parallel.place()[0] == 0 else lambda line: None
                check_overlap(recipe, tell, lambda done, total: advance(0, f"overlap: {done} of {total} pictures"))
            stage = build_stage(recipe, say, offline)
        figures = train_stage(recipe, stage, run, lambda done, total, text: advance(done, f"{run.name}: {text}"))
    if parallel.place()[0] > 0:
        return
    written = {"weights": "weights.safetensors", "curve": "curve.png", "log": "log.jsonl"}
    places = {kind: str(run / file) for kind, file in written.items()}
    if as_json:
        emit({"output": str(run), **places, "figures": figures})
        return
    for kind, place in places.items():
        print(f"{kind}: {place}")
    print(", ".join(f"{name} {value}" for name, value in figures.items()))


def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to write.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Folders of finished runs, in their order.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Write this whole model, with what runs trained, as a folder."),
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="With --model: write what runs trained alone, as an adapter for peft.")
    ] = False,
    shard_size: Annotated[
        str, typer.Option("--shard-size", metavar="SIZE", help="The largest file of a whole model's weights.")
    ] = "5GB",
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Make one small file of what runs trained, which a model card names as `trained`; or, with --model, a whole model
    as a folder: a published one in its authors' format, a card's as one that --model reads back; or an adapter."""
    if adapter:
        _export_adapter(model, runs or [], to, as_json, offline)
        return
    if model is not None:
        _export_model(model, runs or [], to, shard_size, as_json, offline)
        return
    if not runs:
        raise BadInput("expected folders of finished runs, or --model with the model to write")
    with working("export"):
        from vlm.models.trained import release

        path = release(runs, to)
    size = round(path.stat().st_size / 1e6, 1)
    if as_json:
        emit({"weights": str(path), "megabytes": size})
    else:
        print(f"{path}: {size} MB")


def _export_adapter(name: str | None, runs: list[Path], to: Path, as_json: bool, offline: bool) -> None:
    if name is None or not runs:
        raise BadInput("--adapter: expected folders of finished runs, and --model with the model they began with")
    load = lazy_model(name, offline, device="cpu")
    with working("export"):
        from vlm.models.adapters import save_adapter
        from vlm.models.trained import combine, read_trained, weights_of

        parts = load().parts
        if parts is None:
            raise BadInput(f"model {name}: expected one that writes")
        state: dict[str, Tensor] = {}
        for run in runs:
            state = combine(state, read_trained(weights_of(run)))
        base = str(Path(name).resolve()) if Path(name).is_dir() else name
        numbers = save_adapter(parts, state, to, base)
    share = numbers / sum(parameter.numel() for parameter in parts.model.parameters())
    if as_json:
        emit({"folder": str(to), "parameters": numbers, "share": round(share, 5)})
    else:
        print(f"{to}: {numbers:,} parameters, {share:.2%} of the model's")


def _export_model(name: str, runs: list[Path], to: Path, shard_size: str, as_json: bool, offline: bool) -> None:
    load = lazy_model(name, offline, device="cpu")
    model = load()
    with working("export"):
        from vlm.models.trained import apply_trained, read_trained, weights_of
        from vlm.training.stages import give_space

        if model.parts is None:
            raise BadInput(f"model {model.name} is {model.about}: it cannot be saved; expected one that writes")
        for run in runs:
            weights = weights_of(run)
            give_space(model.parts, run)
            apply_trained(model.parts.named(), read_trained(weights), str(weights))
        folder = model.save(to, shard_size=shard_size)
    size = round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)
    if as_json:
        emit({"folder": str(folder), "megabytes": size})
    else:
        print(f"{folder}: {size} MB")
