"""Conversations of two pictures and a clip are learned by every family as they are asked, packed or not."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))  # the random folders of the families' own tests
import random_llava_onevision as onevision
import random_smolvlm as smolvlm
import random_vl2 as vl2

from vlm.errors import BadInput
from vlm.training.loop import train
from vlm.training.objectives.instruct import InstructTask
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage

CLIP = Path(__file__).parents[2] / "data" / "samples" / "temple_and_flower.mp4"
FAMILIES: dict[str, Callable[[Path], Any]] = {
    "a card": tiny.write_card,
    "SmolVLM": smolvlm.write_folder,
    "LLaVA-OneVision": onevision.write_folder,
    "DeepSeek-VL2": vl2.write_folder,
}
LEARNS = ("projector", "language.layers.*.attention", "*.routed.*", "*.router.*")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("model")
    made = FAMILIES[request.param](folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        yield str(made) if request.param == "a card" else str(folder)


def said(role: str, *parts: str) -> dict[str, Any]:
    """A message; a name of a file is what it shows."""
    kinds = {".png": "image", ".mp4": "video"}
    shown = [(kinds.get(Path(part).suffix, "text"), part) for part in parts]
    return {"role": role, "content": [{"type": kind, kind: part} for kind, part in shown]}


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures and a clip over two turns; one picture; text alone."""
    folder = tmp_path_factory.mktemp("said")
    for number in range(3):
        pixels = torch.randint(256, (90, 64 + 40 * number, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{number}.png")
    turns = [
        [said("user", "0.png", "1.png", "Which is larger?"), said("assistant", "The second."),
         said("user", str(CLIP), "And what moves?"), said("assistant", "Nothing, it is a temple.")],
        [said("system", "Be brief."), said("user", "2.png", "What?"), said("assistant", "Noise.")],
        [said("user", "Hello?"), said("assistant", "Yes."), said("user", "Good."), said("assistant", "And you?")],
    ]  # fmt: skip
    path = folder / "said.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return path


def recipe(model: str, file: Path, output: Path, **changes: Any) -> Recipe:
    objective = {"kind": "instruct", "sources": [{"file": str(file)}], **changes.pop("objective", {})}
    data = {
        "model": model, "objective": objective, "learns": list(LEARNS), "output": str(output), "steps": 2, "batch": 3,
        "optimizer": {"lr": 1.0e-3}, "save_every": 2, "validate_every": 2, "log_every": 1,
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def task_of(model: str, file: Path, output: Path, **changes: Any) -> InstructTask:
    wanted = recipe(model, file, output, **changes)
    learns = [pattern for pattern in LEARNS if "rout" not in pattern]
    try:
        task = build_stage(wanted, lambda line: None, offline=True).task
    except BadInput:  # no mixture
        task = build_stage(wanted.model_copy(update={"learns": tuple(learns)}), lambda line: None, offline=True).task
    assert isinstance(task, InstructTask)
    return task


def gradients(task: InstructTask, step: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
    for parameter in task.trainable().values():
        parameter.grad = None
    loss = task.backward(step)
    found = {name: p.grad.clone() for name, p in task.trainable().items() if p.grad is not None}
    return float(loss), found


def test_what_is_learned_is_what_is_asked(model: str, conversations: Path, tmp_path: Path) -> None:
    """The loss is that of each reply behind the prompt it is asked with, by itself."""
    task = task_of(model, conversations, tmp_path)
    processor = task.inputs.parts.processor
    source, total, count = task.sources[0], 0.0, 0
    task.model.eval()
    items = [item for place in range(3) for item in source.items(place, random.Random(0), False)]
    with torch.no_grad():
        ours = float(task._loss([[item] for item in items], None))
        for sample in source.file:
            for number in sample.learned:
                messages = sample.messages[:number]
                shown = sum(part.kind != "text" for message in messages for part in message.parts)
                _, media = task.inputs.opened(sample.media[:shown])
                if task.inputs.features is not None:
                    media = [
                        one if one.is_clip else _open(path) for one, path in zip(media, sample.media, strict=False)
                    ]
                prompt = processor.prompt(messages, media)
                reply = processor.reply(sample.messages[number].text)
                inputs = processor.inputs(prompt)
                ids = torch.cat([inputs.input_ids, torch.tensor([reply])], dim=1)
                logits = task.model(ids, inputs.pixels, inputs.grids)[0]
                total += float(
                    F.cross_entropy(logits[-len(reply) - 1 : -1].float(), torch.tensor(reply), reduction="sum")
                )
                count += len(reply)
    assert count == sum(len(reply) for item in items for reply in item.packed.replies)
    # Kept patches are in bfloat16.
    assert ours == pytest.approx(total, rel=1e-2 if task.inputs.features is not None else 1e-4)


def _open(path: Any) -> Any:
    from vlm.media.open import open_media

    return open_media(path)


@pytest.mark.parametrize("changes", [{"objective": {"length": 4096}}, {"accumulate": 3}, {"accumulate": 2}])
def test_packed_and_in_parts_it_is_the_same(model: str, conversations: Path, tmp_path: Path, changes: Any) -> None:
    loss, plain = gradients(task_of(model, conversations, tmp_path))
    other_loss, other = gradients(task_of(model, conversations, tmp_path, **changes))
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert plain.keys() == other.keys()
    assert plain
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_packing_makes_one_row_and_counts_no_padding(model: str, conversations: Path, tmp_path: Path) -> None:
    task = task_of(model, conversations, tmp_path, objective={"length": 4096})
    rows = task._rows(task._items(0))
    assert len(rows) == 1
    task.model.train()
    task.backward(0)
    loads = [int(router.load_E.sum()) for router in task.model.language.routers()]
    tokens = sum(item.packed.tokens for item in rows[0])
    assert loads == [tokens * router.top_k for router in task.model.language.routers()]


def test_a_sample_that_cannot_be_used_is_left_out_and_named(model: str, conversations: Path, tmp_path: Path) -> None:
    good = conversations.read_text().splitlines()
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    broken = [
        {"messages": [said("user", name, "What?"), said("assistant", "?")]} for name in ("broken.png", "none.png")
    ]
    long = {"messages": [said("user", "a " * 9000), said("assistant", "b")]}
    moved = [json.loads(line) for line in good]
    for record in moved:
        for message in record["messages"]:
            for part in message["content"]:
                if str(part.get("image")).endswith(".png"):
                    part["image"] = str(conversations.parent / part["image"])
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*moved, *broken, long]) + "{\n")
    told: list[str] = []
    wanted = recipe(model, file, tmp_path / "run", batch=6, steps=2, learns=["projector"])
    train(wanted, build_stage(wanted, told.append, offline=True), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert {row["sample"].rpartition(":")[2] for row in rows} == {"4", "5", "6", "7"}
    assert len(rows) == 4
    assert all("\n" not in row["reason"] for row in rows)
    assert sum("left out" in line for line in told) == 4
    few = recipe(model, file, tmp_path / "few", batch=6, learns=["projector"], objective={"faulty": 1})
    with pytest.raises(BadInput, match="more than 1 samples cannot be used"):
        train(few, build_stage(few, told.append, offline=True), tmp_path / "few")
