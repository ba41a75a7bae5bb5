"""A model that guesses ahead for the one that is served: what is counted, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx
import pytest
import tiny
from chatting import CHAT, HELLO, ask, chatting
from serving import ServingProcess

sys.path.insert(0, str(Path(__file__).parents[1] / "engine" / "drafts"))
import dual
import guessing

import vlm
from vlm.cli import main
from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
from vlm.errors import BadInput
from vlm.facade import Model
from vlm.server.chat.loaded import load

ENDLESS = {"max_tokens": 60, "logit_bias": {"0": -100, "1": -100, "2": -100}}


def counted(client: httpx.Client) -> dict[tuple[str, str], float]:
    """By drafter, and by what the guesses are."""
    line = re.compile(r'^vlm_guesses_total\{are="(\w+)",drafter="(\w+)"\} (\S+)$', re.M)
    return {(drafter, are): float(count) for are, drafter, count in line.findall(client.get("/metrics").text)}


def test_metrics_count_guesses_by_who_made_them(tiny_model: Model) -> None:
    settings = EngineSettings(running=4, drafters=("draft",))
    engine = Engine(tiny_model.model, tiny_model.processor, settings, tiny_model.parts).start()
    without = Engine(tiny_model.model, tiny_model.processor, EngineSettings(running=4, guesses=0)).start()
    with chatting(tiny_model, engine) as client, chatting(tiny_model, without) as plain:
        assert counted(client) == {("draft", "guessed"): 0, ("draft", "right"): 0}
        assert ask(client, **ENDLESS).json()["choices"] == ask(plain, **ENDLESS).json()["choices"]
        assert counted(plain) == {}
        first = counted(client)
        assert first["draft", "guessed"] >= first["draft", "right"] > 0
        told = engine.held().drafted["draft"]
        assert (told.guessed, told.right) == (first["draft", "guessed"], first["draft", "right"])
        assert counted(client) == first
    engine.close()
    without.close()


def test_a_draft_that_cannot_guess_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    dual.save_dual(tmp_path / "clip", "clip")
    with pytest.raises(BadInput, match="draft clip: expected a model that writes, got a dual encoder"):
        load(tiny_model, EngineSettings(), draft=vlm.load(tmp_path / "clip"))
    few = guessing.SMALL.model_copy(update={"vocab_size": 200})
    with pytest.raises(BadInput, match="draft few: expected the tokens of the model it guesses for"):
        load(tiny_model, EngineSettings(), draft=vlm.load(guessing.write(tmp_path / "few", few, "llama")))


@pytest.mark.parametrize("kind", ["chat", "all"])
def test_a_draft_that_there_is_not_is_refused_at_once(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = str(tiny.write_card(tmp_path / "tiny"))
    words = ["serve", kind, "--port", "0", "--no-page", "--offline", "--model", card, "--draft", "nanoo"]
    assert main([*words, *(["--root", str(tmp_path / "root")] if kind == "all" else [])]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.process
@pytest.mark.parametrize("kind", ["chat", "all"])
def test_both_servers_take_one(kind: str, tmp_path: Path) -> None:
    card = str(tiny.write_card(tmp_path / "tiny"))
    draft = str(guessing.write(tmp_path / "small", guessing.SMALL, "llama"))
    words = ["--model", card, "--draft", draft, "--offline"]
    server = ServingProcess(kind, *words, *(["--root", str(tmp_path / "root")] if kind == "all" else []))
    assert server.client.post(CHAT, json={"messages": HELLO, **ENDLESS}).status_code == 200
    assert {drafter for drafter, _ in counted(server.client)} == {"lookup", "draft"}
    assert server.end() == 0


@pytest.mark.process
def test_heads_of_a_folder_guess_by_themselves(tmp_path: Path) -> None:
    folder = guessing.write(tmp_path / "heads", guessing.latent(1), "deepseek_v3")
    server = ServingProcess("chat", "--model", str(folder), "--offline")
    assert server.client.post(CHAT, json={"messages": HELLO, **ENDLESS}).status_code == 200
    assert {drafter for drafter, _ in counted(server.client)} == {"lookup", "heads"}
    assert server.end() == 0
