"""The comparisons run at toy size, and only when both sides compute the same."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from vlm.bench import language
from vlm.bench.timing import Ratio
from vlm.cli.app import app
from vlm.language.experts import RoutedExperts


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"width": 24, "heads": 3, "kv_heads": 1, "head_width": 8, "ffn_width": 32, "vocab_size": 50, "layers": 2}
    assert language.MOE.moe is not None
    moe = language.MOE.moe.model_copy(update={"experts": 8, "top_k": 2, "width": 16})
    monkeypatch.setattr(language, "MOE", language.MOE.model_copy(update={**small, "moe": moe}))
    monkeypatch.setattr(language, "LLAMA", language.LLAMA.model_copy(update=small))
    monkeypatch.setattr(
        language, "LATENT", language.LATENT.model_copy(update={**small, "kv_heads": 3, "head_width": 48})
    )
    monkeypatch.setattr(language, "FORWARD_TOKENS", (1, 100))
    monkeypatch.setattr(language, "TRAINING_TOKENS", (16,))
    for name, size in (("PROMPT", 9), ("STEPS", 3), ("LATENT_PAST", 20)):
        monkeypatch.setattr(language, name, size)


def test_every_comparison_agrees_and_is_timed() -> None:
    said: list[str] = []
    results = list(language.run(rounds=1, say=said.append))
    assert all(isinstance(result, Ratio) and result.times > 0 for result in results)
    names = [(result.what.split(",")[0], result.peer.split(", ")[-1]) for result in results]
    paths = ["a loop over experts", "grouped products", "batched products"]
    # one token, a hundred (too many for the path that copies weights), then training
    assert [peer for _, peer in names[:8]] == [*paths, *paths[:2], *paths]
    assert [what for what, _ in names[5:8]] == ["mixture layer forward and backward"] * 3
    assert [what.split(" ")[0] for what, _ in names[8:]] == ["prefill", "decoding", "decoding"]
    assert len(said) == len(results)


def test_a_layer_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RoutedExperts.forward
    monkeypatch.setattr(RoutedExperts, "forward", lambda *args: 1.01 * right(*args))
    with pytest.raises(AssertionError, match=r"mixture layer forward, 1 tokens.*differ by"):
        next(language.moe(rounds=1))


def test_outputs_with_a_nan_do_not_agree() -> None:
    with pytest.raises(AssertionError, match="differ by nan"):
        language._agree("what", torch.tensor([torch.nan]), torch.tensor([1.0]))


def test_command_gives_one_object() -> None:
    done = CliRunner().invoke(app, ["bench", "decode", "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert [result["peer"] for result in results] == ["transformers", "transformers", "ours, expanded"]
