"""The training loop: steps, a log, a curve, checkpoints that survive a kill, and a resume that is exact."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vlm.config import parse
from vlm.errors import BadInput, VlmError
from vlm.files import atomic_folder, atomic_write
from vlm.models.trained import combine
from vlm.training.distributed import average_gradients, place
from vlm.training.optimizer import MasterAdamW
from vlm.training.recipe import Recipe
from vlm.training.stages import Stage
from vlm.training.task import Task

Report = Callable[[int, int, str], None]


def train(recipe: Recipe, stage: Stage, run: Path, report: Report | None = None) -> dict[str, Any]:
    """Run `stage` for `recipe.steps` steps, or the rest of them; returns the last figures.

    In `run`: `log.jsonl` (a line a report), `curve.png`, `checkpoint/` (newest, for resuming), `weights.safetensors`
    (what the stage trained, at the end). A step's randomness depends on the seed and the step alone, so a resumed
    run gives the same weights as an unbroken one. Of several processes the first writes.
    """
    run.mkdir(parents=True, exist_ok=True)
    leads = place()[0] == 0
    task = stage.task
    parameters = task.trainable()
    optimizer = MasterAdamW(recipe.optimizer, parameters, recipe.steps)
    log = run / "log.jsonl"
    start = _resume(recipe, task, optimizer, run)
    rows = _rows_until(log, start)
    began = last = time.monotonic()
    counted = start
    figures: dict[str, Any] = {}
    for step in range(start, recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        loss = task.backward(step)
        average_gradients(parameters.values())
        norm = optimizer.step(step)
        task.after_step()
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            found = f"the loss is {value}, its gradient {norm}, expected finite numbers"
            raise VlmError(f"{run}: at step {step + 1} {found}; the last checkpoint is kept")
        done = step + 1
        validates = done % recipe.validate_every == 0 or done == recipe.steps
        if validates or done % recipe.log_every == 0:
            figures = {"step": done, "loss": round(value, 4), "gradient": round(norm, 3)}
            figures["rate"] = round(optimizer.rate(step), 4)
            figures["seconds_a_step"] = round((time.monotonic() - last) / (done - counted), 3)
            figures |= {key: _rounded(value) for key, value in task.figures().items()}
            if validates:
                figures |= {key: _rounded(value) for key, value in task.validate().items()}
            last, counted = time.monotonic(), done
            rows.append(figures)
            if leads:
                atomic_write(log, "".join(json.dumps(row) + "\n" for row in rows))
        if report is not None:
            seconds = (time.monotonic() - began) / (done - start) * (recipe.steps - done)
            report(done, recipe.steps, f"loss {value:.3f}, {_clock(seconds)} left")
        if leads and (done % recipe.save_every == 0 or done == recipe.steps):
            _save(recipe, stage, optimizer, run, done)
            draw_curve(rows, run / "curve.png")
    if leads:
        shutil.copyfile(run / "checkpoint" / "weights.safetensors", run / "weights.safetensors.part")
        os.replace(run / "weights.safetensors.part", run / "weights.safetensors")
        task.finish(run)
    return rows[-1] if rows else figures


def _rounded(value: float | list[float]) -> float | list[float]:
    return [round(number, 4) for number in value] if isinstance(value, list) else round(value, 4)


def _save(recipe: Recipe, stage: Stage, optimizer: MasterAdamW, run: Path, step: int) -> None:
    with atomic_folder(run / f"checkpoint-{step}") as folder:
        save_file({name: t.contiguous() for name, t in optimizer.state().items()}, folder / "optimizer.safetensors")
        weights = combine(stage.earlier, stage.task.export())
        save_file({name: t.contiguous().clone() for name, t in weights.items()}, folder / "weights.safetensors")
        state = {"step": step, "recipe": recipe.model_dump(mode="json")}
        (folder / "state.json").write_text(json.dumps(state, indent=1))
    # A link is swapped in one rename, so there is always one whole checkpoint.
    link = run / "checkpoint"
    temporary = run / ".checkpoint.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(f"checkpoint-{step}")
    temporary.replace(link)
    # Older ones go, and what a kill left of one half written or half removed.
    for other in run.iterdir():
        if other.name != f"checkpoint-{step}" and re.fullmatch(r"checkpoint-\d+|\.checkpoint-\d+\..+", other.name):
            shutil.rmtree(other, ignore_errors=True)


def _resume(recipe: Recipe, task: Task, optimizer: MasterAdamW, run: Path) -> int:
    """Load the newest checkpoint of the run, if any; returns the steps already done."""
    folder = run / "checkpoint"
    if not (folder / "state.json").is_file():
        return 0
    state = json.loads((folder / "state.json").read_text())
    mine = recipe.model_dump(mode="json")
    theirs = parse(Recipe, state["recipe"], str(folder / "state.json")).model_dump(mode="json")  # names as they are now
    # Where things lie and how often they are reported may change between runs; what is computed may not.
    free = {"output", "data", "device", "compile", "save_every", "validate_every", "log_every"}
    differing = [key for key in mine if key not in free and mine[key] != theirs.get(key)]
    if differing:
        raise BadInput(f"{run}: holds a run with another {', '.join(differing)}; choose another output or delete it")
    optimizer.load_state(load_file(folder / "optimizer.safetensors"))
    saved = load_file(folder / "weights.safetensors")
    for name, buffer in task.buffers().items():
        buffer.copy_(saved[name])
    return int(state["step"])


def _rows_until(log: Path, step: int) -> list[dict[str, Any]]:
    """The log's rows up to `step`: those after the last checkpoint are computed again."""
    if not log.is_file():
        return []
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row for row in rows if row["step"] <= step]


def draw_curve(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss and validation figures over steps, as a PNG."""
    from matplotlib.figure import Figure

    if not rows:
        return
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], label="training loss", alpha=0.6)
    plain = ("step", "loss", "gradient", "rate", "seconds_a_step")
    names = list(dict.fromkeys(k for row in rows for k, v in row.items() if k not in plain and not isinstance(v, list)))
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        target = axes if name.endswith("loss") else axes.twinx()
        target.plot(*zip(*points, strict=True), marker="o", label=name, color=f"C{names.index(name) + 1}")
        if target is not axes:
            target.set_ylabel(name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    figure.legend(loc="upper right")
    figure.savefig(path, dpi=110)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
