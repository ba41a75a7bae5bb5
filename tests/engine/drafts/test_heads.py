"""What a model's own heads guess is what `multi_token.py` computes of the whole reply."""

from __future__ import annotations

import json
from pathlib import Path

import guessing
import pytest
import running
import torch
from torch.nn import functional as F

import vlm
from vlm.engine.drafts.heads import Heads, bytes_of_heads
from vlm.engine.engine import Engine
from vlm.engine.request import Request
from vlm.facade import Model
from vlm.language import LanguageModel
from vlm.language.multi_token import multi_token_losses
from vlm.models.processor import Prompt

N = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guessing.write(tmp_path_factory.mktemp("heads"), guessing.latent(N), "deepseek_v3")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return vlm.load(folder, multi_token=True)


def heads(busy: Engine) -> Heads:
    found = busy.drafting._drafters["heads"]
    assert isinstance(found, Heads)
    return found


def asked(model: Model, text: str = "red wall? blue grass?", **options: object) -> Request:
    prompt = model.processor.read([{"role": "user", "content": text}])
    return Request(prompt, **{"max_tokens": 40, **options})  # type: ignore[arg-type]


@torch.inference_mode()
def whole(language: LanguageModel, ids: list[int], count: int) -> list[torch.Tensor]:
    """The logits `[V]` of each guess behind `ids`, by the plain computation over all of them; guesses are put behind as
    they are made."""
    found = []
    hidden_1TD = language.hidden(language.embedding(torch.tensor([ids])))[:, :-1]  # the last token is not read yet
    said = list(ids)
    for depth in range(1, count + 1):
        tokens_1T = torch.tensor([said[: len(ids) - 1 + depth]])
        states_1TD = torch.nn.functional.pad(hidden_1TD, (0, 0, 0, tokens_1T.shape[1] - hidden_1TD.shape[1]))
        logits_1TV = language.multi_token_logits(states_1TD, tokens_1T)[depth - 1]
        found.append(logits_1TV[0, len(ids) - 2])
        said.append(int(found[-1].argmax()))
    return found


@pytest.mark.parametrize("chunk", [5, 256])
def test_guesses_are_those_of_the_plain_computation(model: Model, chunk: int) -> None:
    """Behind every step, whatever was right and wrong before, and however the prompt was cut."""
    busy = guessing.engine(model, drafters=("heads",), chunk=chunk)
    for text in ("red wall? blue grass?", "Is there a dog in the picture? yes no"):
        busy.submit(asked(model, text), running.Heard())
    compared, original = 0, heads(busy).draft

    def checked(wishes):  # type: ignore[no-untyped-def]
        nonlocal compared
        guesses = original(wishes)
        for (reply, most), made in zip(wishes, guesses, strict=True):
            assert len(made) == most
            ids = [*reply.job.request.prompt.ids, *reply.tokens]
            for guess, logits_V in zip(made, whole(model.model.language, ids, most), strict=True):
                assert logits_V[guess] >= logits_V.max() - 1e-3
                if guess != int(logits_V.argmax()):  # a near tie: what is behind it is another text
                    break
                compared += 1
        return guesses

    heads(busy).draft = checked  # type: ignore[method-assign]
    running.finish(busy)
    assert compared > 40
    assert busy.held().drafted["heads"].guessed > 40


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One whose trunk and head learned to count, from any token on."""
    torch.manual_seed(0)
    language = LanguageModel(guessing.latent(1))
    optimizer = torch.optim.Adam(language.parameters(), lr=0.01)
    for _ in range(150):
        tokens_BT = (torch.arange(24)[None] + torch.randint(320, (16, 1))) % 320
        hidden_BTD = language.hidden(language.embedding(tokens_BT))
        ahead = multi_token_losses(language.multi_token_logits(hidden_BTD, tokens_BT), tokens_BT).mean()
        logits_BTV = language.logits(hidden_BTD)
        loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten()) + ahead
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("taught")
    guessing.write(folder, guessing.latent(1), "deepseek_v3")
    vlm.language.save(language, folder, format="deepseek_v3")
    return vlm.load(folder, multi_token=True)


def test_heads_that_learned_save_nearly_every_second_step(taught: Model) -> None:
    prompt = Prompt(list(range(100, 120)), (), ())
    steps = {}
    for drafters in ((), ("heads",)):
        busy = guessing.engine(taught, drafters=drafters)
        busy.submit(Request(prompt, max_tokens=60), heard := running.Heard())
        steps[drafters] = sum(1 for _ in iter(busy.step, False))
        assert [token.token for token in heard.answers[0].tokens] == list(range(120, 180))
    count = busy.held().drafted["heads"]
    assert count.right > 20
    assert steps["heads",] == steps[()] - count.right


def test_behind_a_prompt_that_was_read_before_they_look_at_what_is_new(model: Model) -> None:
    busy = guessing.engine(model, drafters=("heads",), chunk=8)
    first, again = asked(model), asked(model)
    (heard,) = running.ask(busy, [first])
    busy.submit(again, other := running.Heard())
    begins = set()
    while busy.step():
        begins |= {reply.drafts["heads"].begin for reply in busy._replies if "heads" in reply.drafts}
    assert other.answers == heard.answers
    assert begins == {(len(again.prompt.ids) - 1) // 8 * 8}


def test_they_are_loaded_where_they_are_asked_for_and_there(folder: Path, model: Model, tmp_path: Path) -> None:
    assert model.model.language.cfg.multi_token == N
    bare = vlm.load(folder)
    assert bare.model.language.cfg.multi_token == 0
    assert list(guessing.engine(bare).held().drafted) == ["lookup"]
    assert list(guessing.engine(model).held().drafted) == ["lookup", "heads"]
    # Some folders name them in the config alone.
    vlm.language.save(bare.model.language, tmp_path, format="deepseek_v3")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": N}))
    assert vlm.load(tmp_path, multi_token=True).model.language.cfg.multi_token == 0
    ask = asked(bare)
    assert guessing.plain(bare, [ask]) == [running.ask(guessing.engine(model), [ask])[0].answers]


def test_their_memory_counts_and_goes_with_the_reply(model: Model) -> None:
    busy, without = guessing.engine(model, keep_prompts=False), guessing.engine(model, drafters=("lookup",))
    assert busy._bytes(7) == without._bytes(7) + bytes_of_heads(model.model.language, 7)
    ticket = busy.submit(asked(model), running.Heard())
    while not busy._replies or "heads" not in busy._replies[0].drafts:
        busy.step()
    for _ in range(4):
        busy.step()
        (reply,) = busy._replies
        ahead = reply.drafts["heads"]
        unread = sum(states_tD.nbytes for states in ahead.unread for states_tD in states)
        assert unread <= N * reply.held * 32 * 4
        assert all(cache.length <= reply.held for cache in ahead.caches)
    ticket.cancel()
    busy.step()
    assert reply.drafts == {}
    assert busy.nbytes == 0


def test_one_program_alone_is_guessed_for_too(model: Model, folder: Path) -> None:
    """`Model.chat` has the engine guess with the heads that were loaded; the reply is the one without."""
    said = [{"role": "user", "content": "red wall?"}]
    assert model.chat(said, max_tokens=30) == vlm.load(folder).chat(said, max_tokens=30)
