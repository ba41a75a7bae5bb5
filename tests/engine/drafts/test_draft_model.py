"""A draft model's cache is what a fresh reading gives, and its memory goes with the reply."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import guessing
import pytest
import running
import tiny
import torch

import vlm
from vlm.engine.drafts.model import CATCH_UP, DraftModel, Read
from vlm.engine.engine import Engine
from vlm.engine.request import Request
from vlm.errors import BadInput
from vlm.facade import Model
from vlm.language.attention.kv_cache import KVCache


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = vlm.load(tiny.write_card(tmp_path_factory.mktemp("card")))
    found.processor.stop_tokens = frozenset()
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return vlm.load(guessing.write(tmp_path_factory.mktemp("draft"), guessing.SMALL, "llama"))


def drafter(busy: Engine) -> DraftModel:
    found = busy.drafting._drafters["draft"]
    assert isinstance(found, DraftModel)
    return found


def fresh(model: Model, ids: list[int]) -> tuple[KVCache, torch.Tensor]:
    """A cache that has read them in one go, and the logits `[V]` behind them."""
    language = model.model.language
    cache = KVCache(language.cfg, 1, len(ids), like=language.embedding.weight)
    state_1D = language.prefill(language.embedding(torch.tensor([ids])), cache)
    return cache, language.logits(state_1D)[0]


@pytest.mark.parametrize("itself", [True, False])
@torch.inference_mode()
def test_what_it_keeps_is_what_a_fresh_reading_gives(card: Model, small: Model, itself: bool) -> None:
    """Behind every step, whatever was guessed right and wrong; and it guesses what it would write by itself."""
    draft = card if itself else small
    busy = guessing.engine(card, draft, drafters=("draft",))
    (shown,) = running.pictures(1)
    assert card.writer is not None
    (prompt,) = card.writer.prompts([shown], ["red square?"])
    for one in (prompt, card.processor.read([{"role": "user", "content": "Is there a dog?"}])):
        busy.submit(Request(one, max_tokens=30), running.Heard())
    seen = 0
    while busy.step():
        for reply in busy._replies:
            read: Read | None = reply.drafts.get("draft")
            if read is None or not read.behind:
                continue
            read.catch_up(reply.tokens)
            ids = [*read.words, *read.behind]
            assert read.words == [token for token in reply.job.request.prompt.ids if token >= 0]
            assert read.behind == reply.tokens[: len(read.behind)]
            assert read.cache.length == len(ids)
            cache, _ = fresh(draft, ids)
            for ours, theirs in zip(read.cache.parts, cache.parts, strict=True):
                for a, b in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(a[:, :, : len(ids)], b[:, :, : len(ids)], rtol=1e-3, atol=1e-4)
            (guesses,) = drafter(busy).draft([(reply, 3)])
            for number, guess in enumerate(guesses):
                _, logits_V = fresh(draft, [*read.words, *reply.tokens, *guesses[:number]])
                assert logits_V[guess] >= logits_V.max() - 1e-3
            seen += 1
    assert seen > 10
    count = busy.held().drafted["draft"]
    assert count.guessed > 0
    assert count.right < count.guessed or itself


def test_long_prompts_are_read_some_at_a_time(card: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.engine.drafts.model.CATCH_UP", 20)
    busy = guessing.engine(card, card, drafters=("draft",))
    asked = Request(card.processor.read([{"role": "user", "content": "wall " * 40}]), max_tokens=20)
    heard, lengths = running.Heard(), []
    busy.submit(asked, heard)
    while busy.step():
        lengths += [reply.drafts["draft"].cache.length for reply in busy._replies if "draft" in reply.drafts]
    read = len(asked.prompt.ids)
    assert {20, 40} <= {*lengths}
    assert all(later - before <= 21 for before, later in itertools.pairwise(lengths) if before < read)
    assert max(lengths) > read
    assert heard.answers == guessing.plain(card, [asked])[0]
    assert CATCH_UP > 20


def test_its_memory_counts_and_goes_with_the_reply(card: Model, small: Model) -> None:
    without, busy = guessing.engine(card), guessing.engine(card, small, drafters=("draft",), keep_prompts=False)
    each = KVCache.bytes_of(guessing.SMALL, 1, 4)
    assert busy._bytes(10) == without._bytes(10) + 10 * each
    prompt = card.processor.read([{"role": "user", "content": "red wall?"}])
    ticket = busy.submit(Request(prompt, max_tokens=60), running.Heard())
    while not any("draft" in reply.drafts for reply in busy._replies):
        busy.step()
    (reply,) = busy._replies
    assert busy.held().reply_bytes == busy._bytes(reply.held) > without._bytes(reply.held)
    assert reply.drafts["draft"].cache.length <= reply.held + busy.settings.guesses
    ticket.cancel()
    busy.step()
    assert reply.drafts == {}
    assert busy.nbytes == 0
    need = without._bytes(len(prompt.ids) + 60)
    with pytest.raises(BadInput, match=f"expected a request of at most {need} bytes of keys and values, got one of"):
        guessing.engine(card, small, memory_bytes=need).submit(Request(prompt, max_tokens=60), running.Heard())


def test_replies_longer_than_it_reads_are_not_guessed_for(card: Model, tmp_path: Path) -> None:
    short = guessing.SMALL.model_copy(update={"max_positions": 40})
    draft = vlm.load(guessing.write(tmp_path, short, "llama"))
    busy = guessing.engine(card, draft, drafters=("draft",))
    asked = Request(card.processor.read([{"role": "user", "content": "red wall?"}]), max_tokens=60)
    (heard,) = running.ask(busy, [asked])
    assert heard.answers == guessing.plain(card, [asked])[0]
    assert 0 < busy.held().drafted["draft"].guessed < 4 * 40


def test_other_tokens_are_refused_in_one_line(card: Model, small: Model, tmp_path: Path) -> None:
    folder = guessing.write(tmp_path / "swapped", guessing.SMALL, "llama")
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    words = told["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(told))
    first, second = sorted(("a", "b"), key=lambda token: words[token], reverse=True)
    with pytest.raises(BadInput) as caught:
        guessing.engine(card, vlm.load(folder))
    assert str(caught.value) == (
        f"draft swapped: expected the tokens of the model it guesses for, where {words[second]} is '{first}', "
        f"got one where '{first}' is {words[first]}"
    )
    del told["model"]["vocab"]["a"]
    told["model"]["merges"] = [pair for pair in told["model"]["merges"] if "a" not in "".join(pair)]
    told["model"]["vocab"] = {t: n for t, n in words.items() if len(t) == 1 or "a" not in t}
    path.write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"expected the tokens of the model it guesses for, \d+ of them, got \d+$"):
        guessing.engine(card, vlm.load(folder))


def test_too_small_an_embedding_and_windows_are_refused_in_one_line(card: Model, tmp_path: Path) -> None:
    few = guessing.write(tmp_path / "few", guessing.SMALL.model_copy(update={"vocab_size": 200}), "llama")
    with pytest.raises(BadInput, match=r"draft few: expected the tokens .*, got an embedding of 200"):
        guessing.engine(card, vlm.load(few))
    narrow = guessing.SMALL.model_copy(update={"window": 8})
    windowed = guessing.write(tmp_path / "windowed", narrow, "mistral")
    with pytest.raises(BadInput, match=r"draft windowed: expected a model .* got one with windowed layers"):
        guessing.engine(card, vlm.load(windowed))
