"""Training a language model on text alone: what it learns, logs, resumes and leaves behind."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from published import gap, theirs
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

import vlm.language
from vlm.errors import BadInput
from vlm.language.multi_token import multi_token_losses
from vlm.training.loop import train
from vlm.training.objectives.text import TextTask
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage

LANGUAGE = {
    "vocab_size": 300, "width": 32, "layers": 2, "heads": 2, "kv_heads": 2, "head_width": 16, "ffn_width": 48,
    "max_positions": 64, "norm_eps": 1e-6, "tied_embeddings": False, "rope": {"kind": "plain", "interleaved": True},
    "attention": {"kind": "mla", "kv_rank": 16, "rope_width": 8, "value_width": 16},
    "moe": {"experts": 6, "top_k": 2, "width": 16, "shared_width": 16, "first_dense": 1, "bias_update_rate": 0.01},
    "multi_token": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text of which every second word is decided by the one before."""
    folder, rng = tmp_path_factory.mktemp("text"), random.Random(0)
    pairs = {"dog": "runs", "cat": "sleeps", "bird": "sings", "fish": "swims"}
    lines = [" ".join(f"the {a} {pairs[a]}" for a in rng.choices(list(pairs), k=3)) + ".\n" for _ in range(300)]
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("".join(lines))
    return folder


def recipe(place: Path, output: Path, **changes: Any) -> Recipe:
    objective = {"kind": "text", "path": str(place / "text"), "length": 24, "language": LANGUAGE}
    data = {
        "objective": objective | changes.pop("objective", {}), "output": str(output), "steps": 60, "batch": 4,
        "optimizer": {"lr": 0.01, "warmup": 5}, "save_every": 20, "validate_every": 20, "log_every": 5,
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def run(recipe: Recipe, report: Any = None) -> Path:
    train(recipe, build_stage(recipe, lambda text: None), Path(recipe.output), report)
    return Path(recipe.output)


def log(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds_a_step"} for row in rows]


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    return run(recipe(place, place / "whole"))


def test_it_learns_and_logs_the_routing_of_each_layer(whole: Path) -> None:
    rows = log(whole)
    assert rows[-1]["next_token_loss"] < 0.5 * rows[0]["next_token_loss"]
    assert rows[-1]["multi_token_loss"] < 0.6 * rows[0]["multi_token_loss"]
    assert rows[-1]["validation_next_token_loss"] < 0.6 * rows[0]["next_token_loss"]
    for row in rows:
        assert row["loss"] == pytest.approx(row["next_token_loss"] + row["multi_token_loss"], abs=2e-3)
        for key in ("load", "entropy", "dead"):
            assert len(row[key]) == 2  # the mixture layer and the multi-token head's
        assert all(1 <= load <= 6 for load in row["load"])
        assert all(0 <= entropy <= 1 for entropy in row["entropy"])
        assert ("validation_load" in row) == (row["step"] % 20 == 0)
    assert (whole / "routing.png").read_bytes().startswith(b"\x89PNG")


@torch.no_grad()
def test_the_model_it_leaves_is_a_checkpoint_of_the_family(whole: Path) -> None:
    tokens = torch.randint(300, (2, 20))
    ours = vlm.language.load(whole / "model", multi_token=True)
    again = AutoModelForCausalLM.from_pretrained(whole / "model", dtype=torch.float32, attn_implementation="eager")
    assert gap(ours(tokens), again.eval()(tokens).logits) < 1e-4
    assert (ours.cfg.multi_token, again.config.eos_token_id) == (1, 0)
    assert (whole / "model" / "tokenizer.json").read_bytes() == (whole / "tokenizer.json").read_bytes()
    state, trained = ours.state_dict(), load_file(whole / "weights.safetensors")
    assert state.keys() == trained.keys()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in state.items())
    assert trained["layers.1.ffn.router.bias_E"].abs().max() > 0.05


def test_the_loss_is_that_of_every_next_token_and_of_those_after(place: Path, tmp_path: Path) -> None:
    objective = {"language": LANGUAGE | {"multi_token": 2}, "multi_token_weight": 0.7}
    moe = LANGUAGE["moe"] | {"sequence_balance": 0.1, "z_loss": 0.01}  # type: ignore[operator]
    objective["language"] |= {"moe": moe}  # type: ignore[operator]
    task = build_stage(recipe(place, tmp_path, objective=objective), lambda text: None).task
    assert isinstance(task, TextTask)
    loss = task.loss(3)
    tokens = task.train_NT[[block for _, block, _ in task.steps[3]]]
    logits = task.model(tokens)
    picked = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])
    hidden = task.model.hidden(task.model.embedding(tokens))
    ahead = multi_token_losses(task.model.multi_token_logits(hidden, tokens), tokens)
    routing = task.model.router_losses()
    expected = -picked.mean() + 0.7 * ahead.mean() + routing["sequence_balance"] + routing["z_loss"]
    torch.testing.assert_close(loss, expected)
    assert set(task.figures()) == {"next_token_loss", "multi_token_loss", "sequence_balance_loss", "z_loss"}
    held_out = task.held_out_NT
    task.model.eval()
    with torch.no_grad():
        logits = task.model(held_out)[:, :-1]
    expected_loss = F.cross_entropy(logits.flatten(0, 1), held_out[:, 1:].flatten()).item()
    assert task.validate()["validation_next_token_loss"] == pytest.approx(expected_loss, rel=1e-4)
    assert task.model.training


def test_text_that_is_held_out_is_the_end_of_it(place: Path, tmp_path: Path) -> None:
    task = build_stage(recipe(place, tmp_path), lambda text: None).task
    assert isinstance(task, TextTask)
    blocks = len(task.train_NT) + len(task.held_out_NT)
    assert len(task.held_out_NT) == blocks // 20
    seen = torch.cat([task.train_NT, task.held_out_NT]).flatten()
    assert seen[-1] == 0 or len(seen) % 24 == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"objective": {"format": "glm4_moe", "language": LANGUAGE | {
            "attention": {"kind": "gqa"}, "rope": {"kind": "plain"},
        }}},
        {"objective": {"multi_token_weight": 0.1, "language": LANGUAGE | {
            "moe": LANGUAGE["moe"] | {"sequence_balance": 0.1, "batch_balance": 0.1, "z_loss": 1e-3},  # type: ignore[operator]
        }}},
    ],
)  # fmt: skip
def test_a_run_cut_and_resumed_is_the_whole_run(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    options = changes | {"steps": 6, "save_every": 2, "validate_every": 3, "log_every": 1}
    whole = run(recipe(place, tmp_path / "whole", **options))

    def cut(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe(place, tmp_path / "cut", **options), cut)
    resumed = run(recipe(place, tmp_path / "cut", **options))
    assert_same(resumed, whole)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A forked process has no other, and how many share a sum decides its last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_of_adaptive_routing_resumes_exactly(place: Path, tmp_path: Path) -> None:
    """Its threshold is trained without a gradient, like the bias; no format holds it, so the last step is missed."""
    adaptive = {"scoring": "softmax", "normalise": False, "top_k": 4, "adaptive": {"p": 0.9, "budget": 1.5}}
    moe = LANGUAGE["moe"] | adaptive  # type: ignore[operator]
    objective = {"language": LANGUAGE | {"moe": moe}, "format": None}
    options = {"objective": objective, "steps": 40, "save_every": 2, "log_every": 1}
    whole = run(recipe(place, tmp_path / "whole", **options))
    assert log(whole)[-1]["experts"] == pytest.approx([1.5, 1.5], abs=0.3)
    assert not (whole / "model").exists()
    child = os.fork()
    if child == 0:
        run(recipe(place, tmp_path / "killed", **options))
        os._exit(0)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoint" / "state.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert_same(run(recipe(place, tmp_path / "killed", **options)), whole)


def assert_same(one: Path, other: Path) -> None:
    mine, expected = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert mine.keys() == expected.keys()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in expected.items())
    assert log(one) == log(other)


def test_a_checkpoint_is_continued_with_its_own_vocabulary_and_end(whole: Path, place: Path, tmp_path: Path) -> None:
    """The first loss is where the last run ended; balancing may change."""
    objective = {"language": None, "multi_token": True, "balance": {"bias_update_rate": 0.0, "z_loss": 0.5}}
    more = recipe(place, tmp_path / "more", model=str(whole / "model"), objective=objective, steps=2, log_every=1)
    rows = log(run(more))
    assert rows[0]["next_token_loss"] < log(whole)[-1]["next_token_loss"] + 0.3
    assert rows[0]["z_loss"] > 0
    before, after = (load_file(f / "weights.safetensors") for f in (whole, tmp_path / "more"))
    assert torch.equal(before["layers.1.ffn.router.bias_E"], after["layers.1.ffn.router.bias_E"])
    assert not torch.equal(before["layers.1.ffn.routed.up_EFD"], after["layers.1.ffn.routed.up_EFD"])
    assert not torch.equal(
        before["multi_token.heads.0.projection.weight"], after["multi_token.heads.0.projection.weight"]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"language": None}}, "expected a model"),
        ({"model": "nano"}, "expected a model or an objective.language, not both"),
        ({"objective": {"path": None}}, "expected either a dataset or a path of text, got None and None"),
        ({"objective": {"dataset": "flickr8k"}}, "expected either a dataset or a path"),
        ({"start_from": "runs/a"}, "start_from: objective text goes on from a folder that model names"),
    ],
)
def test_recipes_that_do_not_fit_together(place: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe(place, tmp_path, **changes)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"format": "mixtral"}, "not of a kind that format mixtral can hold|format mixtral cannot hold"),
        ({"format": "mixtrl"}, "unknown language model family 'mixtrl'"),
        ({"path": "nowhere"}, "nowhere: no such file or folder"),
        ({"length": 100_000}, "expected two or more"),
        ({"language": LANGUAGE | {"vocab_size": 100}}, "a vocabulary of 100 has no room for 256 bytes"),
        ({"language": LANGUAGE | {"moe": None}, "balance": {"z_loss": 1.0}}, "the model has no mixture layers"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_is(
    place: Path, tmp_path: Path, objective: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        build_stage(recipe(place, tmp_path, objective=objective), lambda text: None)


def test_a_folder_to_go_on_from_needs_a_tokenizer_and_an_end(place: Path, tmp_path: Path) -> None:
    theirs("qwen3", head_dim=8).save_pretrained(tmp_path / "model")
    options = {"model": str(tmp_path / "model"), "objective": {"language": None, "format": "qwen3"}}
    with pytest.raises(BadInput, match=r"tokenizer\.json: no such file"):
        build_stage(recipe(place, tmp_path / "run", **options), lambda text: None)
    from vlm.conversation.tokenizer import learn_tokenizer

    (tmp_path / "model" / "tokenizer.json").write_text(learn_tokenizer(["a text"], 300))
    with pytest.raises(BadInput, match=r"token \d+ is beyond the model's vocabulary of 60"):
        build_stage(recipe(place, tmp_path / "run", **options), lambda text: None)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    with pytest.raises(BadInput, match="key eos_token_id: expected a token that ends a text, got None"):
        build_stage(recipe(place, tmp_path / "run", **options), lambda text: None)


def test_captions_of_a_data_set_are_text(tmp_path: Path) -> None:
    import tiny

    card = tiny.write_data(tmp_path / "data", pictures=28)
    objective = {"path": None, "dataset": str(card)}
    stage = build_stage(recipe(tmp_path, tmp_path / "run", objective=objective, data=str(tmp_path / "data")), print)
    assert isinstance(stage.task, TextTask)
    from vlm.conversation.tokenizer import TextTokenizer

    said = TextTokenizer(tmp_path / "run" / "tokenizer.json").decode(stage.task.held_out_NT.flatten().tolist())
    assert said.startswith("A red square on the wall .\nA square that is red .")
