"""Stages from recipe to weights, on a few pictures and a random model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from vlm.conversation.packing import pack
from vlm.conversation.template import tidy
from vlm.errors import BadInput
from vlm.heads.writer import Writer
from vlm.media.open import open_media
from vlm.models.assemble import assemble
from vlm.models.card import load_card
from vlm.models.trained import apply_trained, read_trained
from vlm.training.loop import train
from vlm.training.objectives.instruct import InstructTask
from vlm.training.objectives.instruct_sources import Item, by_picture
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model card, two data sets and an empty cache, as `$VLM_CACHE`."""
    folder = tmp_path_factory.mktemp("stages")
    tiny.write_card(folder / "model")
    tiny.write_data(folder / "data", pictures=28)
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(place / "cache"))


def words(place: Path, **changes: object) -> Recipe:
    data = {
        "model": str(place / "model" / "tiny.yaml"), "data": str(place / "data"), "output": "words", "mirror": True,
        "objective": {"kind": "bag_of_words", "dataset": str(place / "data" / "squares.yaml")}, "steps": 30, "batch": 8,
        "optimizer": {"lr": 0.01, "lr_of": {"words.": 0.05}}, "save_every": 10, "validate_every": 30, "log_every": 1,
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def instruct(place: Path, **changes: object) -> Recipe:
    squares, questions = str(place / "data" / "squares.yaml"), str(place / "data" / "squares-vqa.yaml")
    objective = {
        "kind": "instruct",
        "sources": [
            {"dataset": squares, "use": "captions", "share": 0.6, "branches": 2},
            {"dataset": squares, "use": "caption_questions", "share": 0.2, "branches": 2},
            {"dataset": questions, "use": "questions", "share": 0.2, "branches": 1},
        ],
        "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]},
        "sampled_words": 16,
    }
    data = words(place).model_dump(mode="json") | {"objective": objective, "output": "instruct"}
    return Recipe.model_validate({**data, **changes})


def mean_loss(task: InstructTask, items: Sequence[Item], words: torch.Tensor) -> float:
    """Of a reply token, each sequence in a row of its own."""
    return float(task._loss([[item] for item in items], words)) / sum(len(r) for i in items for r in i.packed.replies)


def losses(run: Path, key: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


@pytest.fixture(scope="module")
def words_run(place: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(place / "cache"))
        recipe = words(place)
        train(recipe, build_stage(recipe, lambda text: None, offline=True), place / "words")
    return place / "words"


def test_the_words_stage_learns_to_read_colours(words_run: Path) -> None:
    curve = losses(words_run)
    assert sum(curve[-5:]) < 0.6 * sum(curve[:5])
    assert losses(words_run, "words_loss")[-1] < curve[0]
    names = load_file(words_run / "weights.safetensors").keys()
    assert names
    assert all(name.startswith("projector.") for name in names)


def test_a_run_of_the_objectives_earlier_name_goes_on(place: Path, words_run: Path, tmp_path: Path) -> None:
    earlier = words(place, objective={"kind": "words", "dataset": str(place / "data" / "squares.yaml")})
    assert earlier == words(place)
    shutil.copytree(words_run, tmp_path / "run", symlinks=True)
    state = tmp_path / "run" / "checkpoint" / "state.json"
    content = json.loads(state.read_text())
    content["recipe"]["objective"]["kind"] = "words"
    state.write_text(json.dumps(content))
    figures = train(earlier, build_stage(earlier, lambda text: None, offline=True), tmp_path / "run")
    assert figures["step"] == 30
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == (words_run / "weights.safetensors").read_bytes()


def test_the_instruct_stage_learns_captions_and_ships_what_it_learned(place: Path, words_run: Path) -> None:
    pytest.importorskip("peft")
    recipe = instruct(place, start_from=str(words_run), steps=100, save_every=100, validate_every=100)
    said: list[str] = []
    stage = build_stage(recipe, said.append, offline=True)
    frozen = {n: p.clone() for n, p in stage.task.model.named_parameters() if not p.requires_grad}
    train(recipe, stage, place / "instruct")
    curve = losses(place / "instruct")
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5])
    table = "\n".join(said)
    assert all(name in table for name in ("projector", "*.routed.*", "*.lora_*", "the rest is frozen"))
    for name, parameter in stage.task.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name

    # The file in a fresh model computes what the trained model computes.
    fresh = assemble(load_card(recipe.model), offline=True)
    apply_trained(fresh.model, read_trained(place / "instruct" / "weights.safetensors"), "weights")
    tokens, patches = torch.randint(300, (2, 9)), tiny.patches(2)
    prompt = torch.cat([torch.full((2, 4), -1), tokens], dim=1)
    with torch.no_grad():
        ours, theirs = (tiny.logits(m, prompt, patches) for m in (fresh.model, stage.task.model.eval()))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)

    # And it says what it sees, on pictures it was not trained on.
    for number, colour in enumerate(tiny.COLORS, 24):
        picture = open_media(place / "data" / "squares" / f"{number}.png")
        assert colour in Writer(fresh).caption([picture], max_tokens=30)[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_instruct_run_cut_and_resumed_is_the_whole_run(place: Path, words_run: Path, precision: str) -> None:
    pytest.importorskip("peft")
    recipe = instruct(place, start_from=str(words_run), steps=6, save_every=2, precision=precision)
    runs = [place / f"{precision}-whole", place / f"{precision}-cut"]
    train(recipe, build_stage(recipe, lambda text: None, offline=True), runs[0])

    def cut(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, build_stage(recipe, lambda text: None, offline=True), runs[1], cut)
    train(recipe, build_stage(recipe, lambda text: None, offline=True), runs[1])
    whole, resumed = (load_file(run / "weights.safetensors") for run in runs)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    assert losses(runs[0]) == losses(runs[1])
    biases = [tensor for name, tensor in whole.items() if name.endswith("bias_E")]
    assert all(bias.dtype == torch.float32 for bias in biases)
    assert max(float(bias.abs().max()) for bias in biases) > 0


def test_the_loss_is_the_mean_over_reply_tokens_of_each_branch_alone(place: Path) -> None:
    """Packing, mirroring and the step's softmax change nothing: every branch by itself, over the same words."""
    recipe = instruct(place, steps=2, mirror=False)
    task = build_stage(recipe, lambda text: None, offline=True).task
    assert isinstance(task, InstructTask)
    model = task.model.eval()
    items = task.validation[:3]
    vocabulary = torch.arange(tiny.LANGUAGE.vocab_size)
    with torch.no_grad():
        ours = mean_loss(task, items, vocabulary)
        values = []
        for item in items:
            for branch in item.packed.branches:
                ids = torch.tensor([item.packed.prefix + branch.context + branch.reply])
                logits = tiny.logits(model, ids, task.inputs.features.tokens(item.shown.files[0]).float())[0]
                start = ids.shape[1] - len(branch.reply)
                scores = logits[start - 1 : -1].log_softmax(-1)
                values += (-scores.gather(1, torch.tensor(branch.reply)[:, None])).flatten().tolist()
    assert ours == pytest.approx(sum(values) / len(values), rel=1e-4)
    assert int((pack([i.packed for i in items]).labels_BT != -100).sum()) == len(values)


def test_a_reply_outside_the_steps_words_is_still_learned(place: Path) -> None:
    task = build_stage(instruct(place, steps=2, mirror=False), lambda text: None, offline=True).task
    assert isinstance(task, InstructTask)
    with torch.no_grad():
        items = task.validation[:2]
        replies = torch.tensor([i for item in items for b in item.packed.branches for i in b.reply]).unique()
        few = mean_loss(task, items, torch.tensor([3]))
        assert few == pytest.approx(mean_loss(task, items, torch.cat([replies, torch.tensor([3])])), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words_of_error"),
    [
        ({"data": "nowhere"}, "nowhere: no such data folder"),
        ({"start_from": "runs/none"}, "no weights.safetensors or model.safetensors"),
        ({"model": "nanoo"}, "unknown model 'nanoo'"),
    ],
)
def test_what_a_recipe_names_must_exist(place: Path, changes: dict[str, object], words_of_error: str) -> None:
    with pytest.raises(BadInput, match=words_of_error):
        build_stage(words(place, **changes), lambda text: None, offline=True)


def test_an_instruct_stage_of_questions_alone_says_that_it_has_no_validation(place: Path) -> None:
    recipe = instruct(place)
    questions = [source for source in recipe.objective.sources if source.use == "questions"]
    only = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"sources": questions})})
    said: list[str] = []
    task = build_stage(only, said.append, offline=True).task
    assert any("without validation" in line for line in said)
    assert task.validate() == {}


def test_captions_are_tidied_and_questions_gathered(place: Path) -> None:
    assert tidy("a dog , wet , runs . ") == "A dog, wet, runs."
    assert tidy("Two men") == "Two men."
    assert tidy("") == ""
    from vlm.datasets.examples import load_card as load_dataset

    rows = load_dataset(str(place / "data" / "squares-vqa.yaml")).read(place / "data")
    more = rows[0].model_copy(update={"question": "How many?", "answers": ("night stand, lamp",)})
    gathered = by_picture([*rows, more])
    assert len(gathered) == len(rows)
    assert gathered[0].meta["pairs"] == [("What color is it?", "red"), ("How many?", "night stand, lamp")]
