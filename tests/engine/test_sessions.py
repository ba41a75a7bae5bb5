"""What an engine read of a conversation, in a file and back in another engine: nothing is read twice, and the reply is
the same to the bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import running
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))
import kinds

from vlm.api import load
from vlm.conversation.messages import Conversation, read_messages
from vlm.engine.engine import Engine
from vlm.engine.request import Request, Sampling
from vlm.engine.sessions.sessions import Sessions
from vlm.engine.settings import EngineSettings
from vlm.errors import BadInput
from vlm.heads.writer import Writer

PICTURE, OTHER = running.pictures(2)
(CLIP,) = running.clips(1)
FAMILIES = {"grouped-query": "SmolVLM", "latent": "DeepSeek-VL2", "windowed": "LLaVA-OneVision", "a card": "a card"}


def read(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Writer:
    made = kinds.WRITERS[FAMILIES[kind]](folder)
    if kind == "windowed":  # every other layer sees the last twelve tokens
        fields = json.loads((folder / "config.json").read_text())
        layers = [
            "sliding_attention" if n % 2 else "full_attention"
            for n in range(fields["text_config"]["num_hidden_layers"])
        ]
        fields["text_config"] |= {"use_sliding_window": True, "sliding_window": 12, "layer_types": layers}
        (folder / "config.json").write_text(json.dumps(fields))
    found = load(str(made if kind == "a card" else folder), dtype=dtype).writer
    assert found is not None
    assert (found.model.language.cfg.window == 12) is (kind == "windowed")
    return found


@pytest.fixture(scope="module", params=[*FAMILIES, "grouped-query in bfloat16"])
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    kind, _, half = request.param.partition(" in ")
    return read(tmp_path_factory.mktemp("model"), kind, torch.bfloat16 if half else torch.float32)


def engine(writer: Writer, **settings: Any) -> Engine:
    return Engine(writer.model, writer.processor, EngineSettings.model_validate({"chunk": 16, **settings}))


def said(*media: Any, more: int = 0) -> Conversation:
    """Questions about pictures and clips, and so many turns behind them."""
    shown = [{"type": kind, kind: item} for item in media for kind in ["video" if item.is_clip else "image"]]
    text = {"type": "text", "text": "What color is the wall, red or blue or green?"}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [*shown, text]}]
    for _ in range(more):
        messages += [{"role": "assistant", "content": "red"}, {"role": "user", "content": "Is there a dog?"}]
    return read_messages(messages)


def asked(writer: Writer, conversation: Conversation, client: str = "") -> Request:
    prompt = writer.processor.prompt(conversation.messages, conversation.media)
    return Request(prompt, max_tokens=12, sampling=Sampling(alternatives=2), client=client)


def reply(writer: Writer, of: Engine, conversation: Conversation, client: str = "") -> running.Heard:
    return running.ask(of, [asked(writer, conversation, client)])[0]


def saved(writer: Writer, path: Path, conversation: Conversation, client: str = "") -> Engine:
    made = engine(writer)
    reply(writer, made, conversation, client)
    Sessions(made, "m").packed(conversation, client).write(path)
    return made


def restored(writer: Writer, path: Path, client: str = "", **settings: Any) -> Engine:
    made = engine(writer, **settings)
    sessions = Sessions(made, "m")
    sessions.restore(sessions.opened(path), client)
    return made


@pytest.mark.parametrize("media", [(PICTURE,), (PICTURE, OTHER, PICTURE), (CLIP, PICTURE), ()])
def test_a_reply_after_restoring_is_the_same_and_reads_what_is_new(
    writer: Writer, media: tuple[Any, ...], tmp_path: Path
) -> None:
    first, longer = said(*media), said(*media, more=2)
    before = saved(writer, tmp_path / "a", first)
    warm = reply(writer, before, longer)
    cold = reply(writer, engine(writer), longer)
    after = restored(writer, tmp_path / "a")
    found = reply(writer, after, longer)
    assert found.answers == warm.answers == cold.answers
    assert found.answers[0].tokens[0].logprob is not None
    assert after.pictures.encoded == 0
    assert found.usage == warm.usage
    assert found.usage is not None
    assert cold.usage is not None
    assert found.usage.cached > 0 == cold.usage.cached
    if media:
        assert found.usage.cached >= found.usage.image
        again = reply(writer, after, said(*reversed(media)))  # its pictures are known beside what was read of them
        assert after.pictures.encoded == 0 or writer.processor.by_size(media)
        assert again.answers == reply(writer, engine(writer), said(*reversed(media))).answers


def test_what_was_said_and_shown_comes_back_to_the_last_pixel(writer: Writer, tmp_path: Path) -> None:
    clip = dataclasses.replace(CLIP, duration=2.75, source="a b.mp4", notes=("of two streams the first",))
    conversation = said(clip, PICTURE, OTHER, PICTURE, more=1)
    made = engine(writer)
    Sessions(made, "m").packed(conversation).write(tmp_path / "a")
    sessions = Sessions(engine(writer), "m")
    session = sessions.opened(tmp_path / "a")
    assert session.said.messages == conversation.messages
    assert session.about == sessions.about(tmp_path / "a")
    assert (session.about.turns, session.about.media, session.about.read_tokens) == (2, 4, 0)
    for ours, theirs in zip(session.said.media, conversation.media, strict=True):
        assert dataclasses.replace(ours, frames=()) == dataclasses.replace(theirs, frames=())
        assert [frame.tobytes() for frame in ours.frames] == [frame.tobytes() for frame in theirs.frames]
    sessions.restore(session)  # nothing was read of it
    assert sessions.engine.prompts.nbytes == sessions.engine.pictures.nbytes == 0


def test_who_restores_it_has_it_alone(writer: Writer, tmp_path: Path) -> None:
    saved(writer, tmp_path / "a", said(PICTURE), "ours")
    after = restored(writer, tmp_path / "a", "ours")
    assert reply(writer, after, said(PICTURE, more=1), "theirs").usage.cached == 0  # type: ignore[union-attr]
    assert after.pictures.encoded > 0
    assert reply(writer, after, said(PICTURE, more=1), "ours").usage.cached > 0  # type: ignore[union-attr]


def test_bounds_of_memory_hold(writer: Writer, tmp_path: Path) -> None:
    """What is restored gives way as what was read does, from its end on."""
    full = saved(writer, tmp_path / "a", said(PICTURE, more=2)).prompts.nbytes
    after = restored(writer, tmp_path / "a", prompts_bytes=full // 2, pictures_bytes=0)
    assert 0 < after.prompts.nbytes <= full // 2
    assert after.pictures.nbytes == 0
    found = reply(writer, after, said(PICTURE, more=3))
    assert found.answers == reply(writer, engine(writer), said(PICTURE, more=3)).answers
    assert found.usage is not None
    assert found.usage.cached > 0


def test_others_are_answered_as_always_meanwhile(writer: Writer, tmp_path: Path) -> None:
    """Saved and restored by other threads, in an engine that has to forget."""
    requests = running.requests(writer, 20, 3, [PICTURE, OTHER, CLIP])
    expected = [reply.answers for reply in running.ask(engine(writer), requests)]
    size = saved(writer, tmp_path / "a", said(PICTURE, more=2)).prompts.nbytes
    busy = engine(writer, prompts_bytes=2 * size, pictures_bytes=2**12)
    over = threading.Event()
    failed: list[Exception] = []

    def work(number: int) -> None:
        sessions = Sessions(busy, "m")
        try:
            while not over.is_set():
                sessions.restore(sessions.opened(tmp_path / "a"), str(number))
                sessions.packed(said(PICTURE, more=2), str(number)).write(tmp_path / f"{number}")
                sessions.opened(tmp_path / f"{number}")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    found = [[one.answers for one in running.ask(busy, requests)] for _ in range(2)]
    over.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert found == [expected, expected]
    assert busy.nbytes == busy.prompts.nbytes <= 2 * size
    assert busy.prompts.nbytes == sum(taken.nbytes for _, taken in busy.prompts._known.values())


def test_other_kernels_and_chunks_are_refused_by_name(writer: Writer, tmp_path: Path) -> None:
    saved(writer, tmp_path / "a", said(PICTURE))
    for name, line in (
        ("torch", "was saved where products have other last digits: torch '1.0'"), ("threads", "threads '1.0'"),
        ("cpu", "cpu '1.0'"), ("weights", "expected a session of model m, got one of weights '1.0'"),
        ("configuration", "configuration '1.0'"), ("processor", "processor '1.0'"),
    ):  # fmt: skip
        sessions = Sessions(engine(writer), "m")
        sessions.identity  # noqa: B018  # made now
        session = sessions.opened(tmp_path / "a")
        session = dataclasses.replace(session, identity={**session.identity, name: "1.0"})
        with pytest.raises(BadInput, match=line):
            sessions.restore(session)
        assert sessions.engine.prompts.nbytes == sessions.engine.pictures.nbytes == 0
    sessions = Sessions(engine(writer, chunk=32), "m")
    with pytest.raises(BadInput, match="chunk '16', here '32'"):
        sessions.restore(sessions.opened(tmp_path / "a"))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    one = read(tmp_path / "model", "a card")
    saved(one, tmp_path / "a", said(PICTURE))
    with torch.no_grad():
        next(one.model.language.parameters()).mul_(1.5)
    with pytest.raises(BadInput, match=r"expected a session of model m, got one of weights [0-9a-f]{12}, here"):
        restored(one, tmp_path / "a")
    other = read(tmp_path / "other", "latent")
    with pytest.raises(BadInput, match="got one of configuration"):
        restored(other, tmp_path / "a")


KILLED = """
import sys, torch, numpy as np
from pathlib import Path
from vlm.engine.sessions import file
path = Path(sys.argv[1])
pixels = torch.zeros(2**24, dtype=torch.uint8)
print("writes", flush=True)
while True:
    pixels += 1
    file.write(path, {"a": pixels}, {"number": str(int(pixels[0]))})
"""


@pytest.mark.process
def test_a_kill_while_it_is_written_loses_nothing_of_the_last(tmp_path: Path) -> None:
    from vlm.engine.sessions import file

    path = tmp_path / "a"
    for wait in (0.1, 0.25):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"writes\n"
        while not path.exists():
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        metadata, tensors = file.read(path, 2**30)
        assert tensors["a"].unique().tolist() == [int(metadata["number"])]
