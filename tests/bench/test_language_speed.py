"""The comparisons run at toy size, and only when both sides compute the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vlm.bench import decode, llama_cpp, moe
from vlm.bench.reference import check_agreement
from vlm.bench.timing import Missing, Ratio
from vlm.cli.app import app
from vlm.language import LanguageModel
from vlm.language.checkpoints.llama import read_gguf
from vlm.language.mixture.experts import RoutedExperts


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"width": 24, "heads": 3, "kv_heads": 1, "head_width": 8, "ffn_width": 32, "vocab_size": 50, "layers": 2}
    for module, name in ((moe, "MOE"), (decode, "MIXTURE")):
        cfg = getattr(module, name)
        routing = cfg.moe.model_copy(update={"experts": 8, "top_k": 2, "width": 16})
        monkeypatch.setattr(module, name, cfg.model_copy(update={**small, "moe": routing}))
    monkeypatch.setattr(decode, "LLAMA", decode.LLAMA.model_copy(update=small))
    monkeypatch.setattr(decode, "LATENT", decode.LATENT.model_copy(update={**small, "kv_heads": 3, "head_width": 48}))
    monkeypatch.setattr(moe, "FORWARD_TOKENS", (1, 100))
    monkeypatch.setattr(moe, "TRAINING_TOKENS", (16,))
    monkeypatch.setattr(moe, "LEAST_SECONDS", 0.0)
    for name, size in (("PROMPT", 9), ("STEPS", 3), ("LATENT_PAST", 20)):
        monkeypatch.setattr(decode, name, size)


PATHS = ["a loop over experts", "grouped products", "batched products"]


def test_every_layer_comparison_agrees_and_is_timed() -> None:
    said: list[str] = []
    results = list(moe.run(rounds=1, say=said.append))
    assert all(result.times > 0 for result in results)
    names = [(result.what.split(",")[0], result.peer.split(", ")[-1]) for result in results]
    # one token, a hundred (too many for the path that copies weights), then training, then the floor
    assert [peer for _, peer in names[:8]] == [*PATHS, *PATHS[:2], *PATHS]
    assert [what for what, _ in names[5:8]] == ["mixture layer forward and backward"] * 3
    assert all(result.peer.startswith("a sum over the weights of the 2 experts called") for result in results[8:9])
    assert len(said) == len(results) == 10


def test_every_decoding_comparison_agrees_and_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    results = list(decode.run(rounds=1))
    assert [result.what.split(" ")[0] for result in results] == ["prefill"] + ["decoding"] * 8
    peers = ["transformers", "transformers", "a sum over the weights a token, 0 MB"]
    peers += ["llama.cpp, float32", "llama.cpp, float16", *(f"transformers, {path}" for path in PATHS)]
    assert [result.peer for result in results] == [*peers, "ours, expanded"]
    missing = [result for result in results if isinstance(result, Missing)]
    assert [result.why for result in missing] == ["xllamacpp is not installed"] * 2
    assert all(result.times > 0 for result in results if isinstance(result, Ratio))


def test_a_layer_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RoutedExperts.forward
    monkeypatch.setattr(RoutedExperts, "forward", lambda *args: 1.01 * right(*args))
    with pytest.raises(AssertionError, match=r"mixture layer forward, 1 tokens.*differ by"):
        next(moe.run(rounds=1))


def test_outputs_with_a_nan_do_not_agree() -> None:
    with pytest.raises(AssertionError, match="differ by nan"):
        check_agreement("what", torch.tensor([torch.nan]), torch.tensor([1.0]))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_llama_cpp_is_given_reads_back_as_the_model(dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    model = LanguageModel(decode.LLAMA.model_copy(update={"tied_embeddings": tied}))
    llama_cpp.write_gguf(model, tmp_path / "model.gguf", dtype)
    cfg, state = read_gguf(tmp_path / "model.gguf")
    assert cfg == model.cfg
    for name, weight in state.items():
        kept = model.state_dict()[name]
        assert torch.equal(weight, kept.to(dtype).float() if weight.dim() == 2 else kept), name


class StandIn:
    """Answers as llama.cpp's server does, with our own model; `wrong` moves every token by one."""

    wrong = 0

    def __init__(self, options: Any):
        cfg, state = read_gguf(Path(options.model.path))
        self.model: LanguageModel = LanguageModel(cfg).eval()
        self.model.load_state_dict(state, strict=False)

    @torch.inference_mode()
    def handle_completions(self, request: dict[str, Any]) -> dict[str, Any]:
        tokens = list(request["prompt"])
        for _ in range(request["max_tokens"]):
            tokens.append(int(self.model(torch.tensor([tokens]))[0, -1].argmax()))
        chosen = [{"id": token + self.wrong} for token in tokens[len(request["prompt"]) :]]
        return {"choices": [{"logprobs": {"content": chosen}}]}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def options() -> SimpleNamespace:
        return SimpleNamespace(**{name: SimpleNamespace() for name in ("model", "cpuparams", "cpuparams_batch")})

    types = SimpleNamespace(GGML_TYPE_F32=0)
    fake = SimpleNamespace(Server=StandIn, CommonParams=options, ggml_type=types)
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)


def test_llama_cpp_must_choose_the_same_tokens(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [result for result in decode.run(rounds=1) if result.peer.startswith("llama.cpp")]
    assert all(isinstance(result, Ratio) for result in results)
    assert len(results) == 2
    monkeypatch.setattr(StandIn, "wrong", 1)
    with pytest.raises(AssertionError, match="tokens differ"):
        list(decode.run(rounds=1))


def test_command_gives_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    done = CliRunner().invoke(app, ["bench", "decode", "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert len(results) == 9
    assert results[0]["peer"] == "transformers"
