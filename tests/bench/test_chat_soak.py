"""A few seconds of the chat server's soak: it passes, and it notices what must never happen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed (pip: vlm[serve])")

from vlm.bench.chat_client import Answer
from vlm.bench.chat_crowd import KINDS, Client, Log, judged
from vlm.bench.chat_soak import Budget, soak

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))  # the random folders of the families' own tests
import random_smolvlm


@pytest.mark.process
def test_a_short_soak_passes(tmp_path: Path) -> None:
    random_smolvlm.write_folder(tmp_path / "model")
    done = soak(str(tmp_path / "model"), 4, clients=4, budget=Budget(running=1, waiting=1, memory_mb=16))
    assert done.passed, (done.lost, done.wrong)
    assert {"stream", "whole"} <= set(done.requests) <= set(KINDS)
    assert done.held["running"] == done.held["waiting"] == done.held["reply"] == 0
    assert done.finished_at_end > 0 < done.refused_when_full
    assert 0 < done.p50_ms <= done.p99_ms
    assert done.restart_seconds > 0


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def asking(log: Log) -> Iterator[Client]:
    found = Client(0, "http://127.0.0.1:9", log, {"a": {}}, {"a": "red"}, None, b"")
    yield found
    found.http.close()


WHOLE = Answer(200, "red", tokens=1, finish="stop", done=True)


@pytest.mark.parametrize(
    ("answer", "where"),
    [
        (Answer(200, "rod", tokens=1, finish="stop", done=True), "wrong"),
        (Answer(500, "internal"), "wrong"),
        (Answer(200, "re", tokens=1), "lost"),
        (Answer(429, "busy"), "wrong"),
        (Answer(429, "busy", retry_after="0"), "wrong"),
    ],
)
def test_what_must_never_happen_is_noticed(asking: Client, log: Log, answer: Answer, where: str) -> None:
    asking._judged("a", answer)
    assert [len(log.lost), len(log.wrong)] == [where == "lost", where == "wrong"]


def test_what_is_right_is_let_be(asking: Client, log: Log) -> None:
    assert not judged(WHOLE, "red")
    assert asking._judged("a", WHOLE) is None
    assert asking._judged("a", Answer(429, "busy", retry_after="3")) == 3
    assert (log.lost, log.wrong, log.answers) == ([], [], [WHOLE])


def test_a_server_that_has_gone_loses_requests_unless_it_was_killed(asking: Client, log: Log) -> None:
    asked = iter([False, True])
    asking.do_whole = asking.do_stream = asking.do_slow = asking.do_vanish = _refused  # type: ignore[method-assign]
    asking.do_drop = asking.do_decide = asking.do_malformed = _refused  # type: ignore[method-assign]
    asking.run(lambda: next(asked))
    assert len(log.lost) == 1
    log.killed = True
    again = Client(1, "http://127.0.0.1:9", log, {"a": {}}, {"a": "red"}, None, b"")
    again.do_whole = again.do_stream = again.do_slow = again.do_vanish = _refused  # type: ignore[method-assign]
    again.do_drop = again.do_decide = again.do_malformed = _refused  # type: ignore[method-assign]
    again.run(lambda: False)
    assert len(log.lost) == 1


def _refused() -> int | None:
    raise httpx.ConnectError("refused")
