"""Who is answered when, and what is held meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import running
import tiny

from vlm.api import load
from vlm.engine.engine import Engine
from vlm.engine.request import Full, Piece, Request, Sampling
from vlm.engine.settings import EngineSettings
from vlm.errors import BadInput
from vlm.heads.writer import Writer


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    found = load(str(tiny.write_card(tmp_path_factory.mktemp("tiny")))).writer
    assert found is not None
    found.processor.stop_tokens = frozenset()  # replies are as long as they may be
    return found


def engine(writer: Writer, **settings: object) -> Engine:
    return Engine(writer.model, writer.processor, EngineSettings.model_validate({"chunk": 16, **settings}))


def ask(writer: Writer, text: str = "red wall?", **options: object) -> Request:
    prompt = writer.processor.read([{"role": "user", "content": text}])
    return replace(Request(prompt, max_tokens=8), **options)  # type: ignore[arg-type]


def order(busy: Engine, requests: list[Request]) -> list[int]:
    """In which order the requests end."""
    ended: list[int] = []

    def listener(number: int):  # type: ignore[no-untyped-def]
        return lambda piece: ended.append(number) if piece.usage else None

    for number, request in enumerate(requests):
        busy.submit(request, listener(number))
    running.finish(busy)
    return ended


def test_first_come_first_served_and_priorities_before_that(writer: Writer) -> None:
    asked = [ask(writer, priority=p) for p in (1, 0, 1, 0)]
    assert order(engine(writer, running=1), asked) == [1, 3, 0, 2]


def test_a_client_with_many_requests_holds_up_no_other(writer: Writer) -> None:
    asked = [*[ask(writer, client="many") for _ in range(6)], ask(writer, client="one")]
    ended = order(engine(writer, running=1), asked)
    assert ended.index(6) <= 1


def test_a_token_of_every_reply_comes_before_more_of_the_prompts(writer: Writer) -> None:
    busy = engine(writer, tokens=16, guesses=0)
    first, second = running.Heard(), running.Heard()
    busy.submit(ask(writer), first)
    while not first.answers:
        busy.step()
    busy.submit(ask(writer, "blue " * 20), second)  # several chunks
    before = len(busy._replies[0].tokens)
    steps = 0
    while not second.answers:
        busy.step()
        steps += 1
    assert steps > 2
    assert not busy._replies[0].tokens[before + steps :]
    assert len(busy._replies[0].tokens) == before + steps


def test_a_cancelled_request_holds_nothing(writer: Writer) -> None:
    busy = engine(writer, keep_prompts=False)
    heard = running.Heard()
    ticket = busy.submit(ask(writer, max_tokens=100), heard)
    for _ in range(5):
        busy.step()
    assert busy.nbytes > 0
    ticket.cancel()
    busy.step()
    assert busy.nbytes == 0
    assert heard.answers[0].finish == "cancelled"
    ticket.cancel()
    assert not busy.step()


def test_what_is_there_at_the_deadline_is_the_reply(writer: Writer) -> None:
    busy = engine(writer)
    heard = running.Heard()
    busy.submit(ask(writer, max_tokens=100, seconds=0.05), heard)
    until = time.monotonic() + 20
    while busy.step():
        time.sleep(0.005)
        assert time.monotonic() < until
    assert heard.answers[0].finish == "deadline"
    assert 0 < len(heard.answers[0].tokens) < 100


def test_a_full_queue_says_when_to_come_again(writer: Writer) -> None:
    busy = engine(writer, waiting=2)
    for _ in range(2):
        busy.submit(ask(writer), running.Heard())
    with pytest.raises(Full) as caught:
        busy.submit(ask(writer), running.Heard())
    assert caught.value.seconds > 0
    running.finish(busy)
    busy.submit(ask(writer), running.Heard())


def test_a_reply_that_has_ended_takes_no_place(writer: Writer) -> None:
    """Whoever asks as soon as the answer is there, in the middle of the engine's step, is not refused."""
    busy = engine(writer, waiting=1)
    answers = []

    def heard(piece: Piece) -> None:
        answers.append(piece)
        if piece.finish is not None and len(answers) < 20:
            busy.submit(ask(writer, max_tokens=1), heard)

    busy.submit(ask(writer, max_tokens=1), heard)
    running.finish(busy)
    assert len([piece for piece in answers if piece.finish]) > 5


def test_what_can_never_be_answered_is_refused_at_once(writer: Writer) -> None:
    with pytest.raises(BadInput, match="the language model reads at most 256"):
        engine(writer).submit(ask(writer, max_tokens=300), running.Heard())
    with pytest.raises(BadInput, match="expected a request of at most 5000 bytes of keys and values, got one of"):
        engine(writer, memory_bytes=5000).submit(ask(writer, max_tokens=100), running.Heard())
    with pytest.raises(BadInput, match="n 0"):
        engine(writer).submit(ask(writer, n=0), running.Heard())


def test_memory_stays_within_its_budget(writer: Writer) -> None:
    asked = [ask(writer, f"{word} {word}?", max_tokens=60) for word in running.WORDS]
    most = 2 * engine(writer)._bytes(120)
    busy = engine(writer, memory_bytes=most)
    heard = [running.Heard() for _ in asked]
    for request, listener in zip(asked, heard, strict=True):
        busy.submit(request, listener)
    while busy.step():
        assert busy.nbytes <= most + busy._bytes(len(asked))
    assert busy.preempted > 0
    assert all(len(one.answers[0].tokens) == 60 for one in heard)


def test_a_request_that_fails_is_the_only_one(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = running.pictures(2)
    pixels = writer.processor.pixels

    def fails(item, layout):  # type: ignore[no-untyped-def]
        if item is bad:
            raise RuntimeError("no pixels")
        return pixels(item, layout)

    monkeypatch.setattr(writer.processor, "pixels", fails)
    prompts = writer.prompts([good, bad], ["red?", "red?"])
    first, second = running.ask(engine(writer), [Request(prompt, max_tokens=4) for prompt in prompts])
    assert len(first.answers[0].tokens) == 4
    assert isinstance(second.error, RuntimeError)


def test_replies_of_one_request_differ_by_their_seeds(writer: Writer) -> None:
    sampling = Sampling(temperature=2.0, seed=5)
    (heard,) = running.ask(engine(writer), [ask(writer, n=3, sampling=sampling)])
    texts = [tuple(token.token for token in heard.answers[choice].tokens) for choice in range(3)]
    assert len(set(texts)) == 3
    assert heard.usage is not None
    assert heard.usage.reply == 24


def test_from_many_threads(writer: Writer) -> None:
    busy = engine(writer).start()
    done: list[Piece] = []
    expected = running.ask(engine(writer), [ask(writer, word) for word in running.WORDS])

    def caller(word: str) -> None:
        over = threading.Event()
        texts: list[str] = []

        def heard(piece: Piece) -> None:
            texts.append(piece.text)
            if piece.finish:
                done.append(replace(piece, text=f"{word}: {''.join(texts)}"))
                over.set()

        busy.submit(ask(writer, word), heard)
        assert over.wait(60)

    threads = [threading.Thread(target=caller, args=(word,)) for word in running.WORDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    busy.close()
    wanted = [f"{word}: {one.answers[0].text}" for word, one in zip(running.WORDS, expected, strict=True)]
    assert sorted(piece.text for piece in done) == sorted(wanted)
    with pytest.raises(Full):
        busy.submit(ask(writer), running.Heard())


def test_a_second_question_about_a_picture_reads_neither_it_nor_its_prompt_again(writer: Writer) -> None:
    (picture,) = running.pictures(1)
    busy = engine(writer)
    first, second = writer.prompts([picture, picture], ["red?", "Is there a dog in the picture?"])
    running.ask(busy, [Request(first, max_tokens=4)])
    encoded = busy.pictures.encoded
    (heard,) = running.ask(busy, [Request(second, max_tokens=4)])
    assert heard.usage is not None
    assert busy.pictures.encoded == encoded == heard.usage.image
    slots = [place for place, token in enumerate(second.ids) if token == writer.processor.image_token]
    assert heard.usage.cached == slots[-1] + 1


def test_another_client_finds_nothing(writer: Writer) -> None:
    (picture,) = running.pictures(1)
    busy = engine(writer)
    (prompt,) = writer.prompts([picture], ["red?"])
    running.ask(busy, [Request(prompt, max_tokens=4, client="a")])
    encoded = busy.pictures.encoded
    (heard,) = running.ask(busy, [Request(prompt, max_tokens=4, client="b")])
    assert heard.usage is not None
    assert heard.usage.cached == 0
    assert busy.pictures.encoded == 2 * encoded


def test_a_reply_that_repeats_itself_is_guessed(writer: Writer) -> None:
    """What a random model says without end goes in circles soon."""
    asked = ask(writer, max_tokens=120)
    steps = {}
    for guesses in (0, 4):
        busy = engine(writer, guesses=guesses)
        heard = running.Heard()
        busy.submit(asked, heard)
        steps[guesses] = sum(1 for _ in iter(busy.step, False))
        assert len(heard.answers[0].tokens) == 120
    right = busy.held().drafted["lookup"].right
    assert right > 20
    assert steps[4] <= steps[0] - right


def test_a_step_that_fails_ends_its_replies_and_not_the_engine(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = engine(writer)
    heard = running.Heard()
    busy.submit(ask(writer), heard)
    while not heard.answers:
        busy.step()

    def fails(replies: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(busy.decoding, "feed", fails)
        busy.step()
    assert isinstance(heard.error, MemoryError)
    assert busy.nbytes == busy.prompts.nbytes
    (after,) = running.ask(busy, [ask(writer)])
    assert len(after.answers[0].tokens) == 8
