"""What an endpoint's faults cost: what is asked again, what ends a run, what is kept."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_server import ROWS, ChatServer, color, completion, options, words
from squares import write_benchmark

from vlm.cli import main
from vlm.errors import BadInput, VlmError
from vlm.evaluation.endpoint import client
from vlm.evaluation.endpoint.client import EndpointGone, EndpointOptions
from vlm.evaluation.results import read_run, read_samples
from vlm.evaluation.run import evaluate

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.mark.parametrize("fault", [(429, {"Retry-After": "0"}), (500, {}), (503, {}), (408, {})])
def test_a_busy_or_broken_moment_is_asked_again(tmp_path: Path, fault: tuple[int, dict[str, str]]) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")
    seen: set[str] = set()

    def flaky(body: dict[str, Any]) -> Any:
        first = words(body) not in seen
        seen.add(words(body))
        return (*fault, {"error": {"message": "busy"}}) if first else color(body)

    with ChatServer(flaky).running() as server:
        [result] = evaluate(server.url, [card], options(tmp_path))
    assert len(server.bodies) == 24
    assert result.figures["accuracy"].value == 100
    assert result.usage is not None
    assert result.usage.requests == 12


def test_an_endpoint_that_is_silent_is_asked_again_and_then_ends_the_run(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    end = threading.Event()
    with ChatServer(lambda body: str(end.wait(20))).running() as server:
        with pytest.raises(EndpointGone, match=r"stopped answering: .*timed out.* \(3 times\)"):
            evaluate(server.url, [card], options(tmp_path, endpoint=EndpointOptions(1, 2, 0.2)))
        end.set()
    assert len(server.bodies) == 3


def test_one_request_that_is_refused_is_its_own(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")

    def choosy(body: dict[str, Any]) -> Any:
        refused = words(body) in ("What color is 4?", "What color is 5?")
        return (400, {}, {"error": {"message": "content policy"}}) if refused else color(body)

    with ChatServer(choosy).running() as server:
        [result] = evaluate(server.url, [card], options(tmp_path))
        assert result.figures["accuracy"].value == pytest.approx(100 * 10 / 12, abs=1e-4)
        assert [s.output for s in read_samples(tmp_path / "run/squares-test")][4:6] == ["", ""]
        told = "2 of 12 requests were refused and count as empty answers, the first: 400: content policy"
        assert told in result.notes
        server.answer = color
        [again] = evaluate(server.url, [card], options(tmp_path, resume=True))
    assert again.figures["accuracy"].value == 100
    assert len(server.bodies) == 14, "only what was refused is asked again"


def test_an_endpoint_that_refuses_every_request_ends_the_run(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")
    fault = (400, {}, {"error": {"message": "this model takes no pictures"}})
    with ChatServer(lambda body: fault).running() as server, pytest.raises(BadInput, match="takes no pictures"):
        evaluate(server.url, [card], options(tmp_path))
    assert len(server.bodies) <= 8


def test_what_is_done_is_reported_when_the_endpoint_dies_and_a_resumed_run_asks_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_benchmark(tmp_path / "data", ROWS, kind="vqa", name="first")
    Path(first).rename(first := first.replace("benchmark", "first"))
    second = write_benchmark(tmp_path / "data", ROWS, kind="vqa", name="second", prompts=["{question} Again."])
    arguments = ["eval", "--tasks", f"{first},{second}", "--data", str(tmp_path / "data"), "--output",
                 str(tmp_path / "run"), "--retries", "1", "--concurrency", "2"]  # fmt: skip
    dead = (503, {}, {"error": {"message": "the model is gone"}})
    server = ChatServer(lambda body: color(body) if len(server.bodies) <= 12 + 5 else dead)
    with server.running():
        code = main([*arguments, "--model", server.url])
    err = capsys.readouterr().err.splitlines()
    assert code == 1
    assert err[:2] == [
        f"vlm: 1 of 2 tasks are done and reported in {tmp_path / 'run'}",
        f"vlm: what is answered is kept in {tmp_path / 'run'}; the same command with --resume goes on",
    ]
    assert "503 after 1 repeats: the model is gone" in err[2]
    assert "- Endpoint: 12 requests, 120 tokens read, 12 written" in (tmp_path / "run/report.md").read_text()
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert [result["task"] for result in report["results"]] == ["first"]
    server = ChatServer(color)
    with server.running():
        assert main([*arguments, "--model", server.url, "--resume"]) == 0
    assert len(server.bodies) == 12 - 5, "what was answered is not asked again, also of the same model elsewhere"
    info, finished = read_run(tmp_path / "run")
    assert list(finished) == ["first", "second"]
    assert info.usage is not None
    assert info.usage.requests == 24


def test_what_is_refused_at_once_leaves_a_run_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")
    arguments = ["eval", "--tasks", card, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    with ChatServer(color).running() as server:
        assert main([*arguments, "--model", server.url]) == 0
        (tmp_path / "run" / "report.md").unlink()
        capsys.readouterr()
        assert main([*arguments, "--model", server.url]) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if "go on with it (--resume)" not in line] == []
    assert not (tmp_path / "run" / "report.md").exists()


def test_a_task_that_fails_by_itself_does_not_stop_the_others(tmp_path: Path) -> None:
    good = write_benchmark(tmp_path / "data", ROWS, kind="vqa", name="good")
    Path(good).rename(good := good.replace("benchmark", "good"))
    bad = write_benchmark(tmp_path / "data", ROWS, kind="vqa", name="bad", prompts=["{question} {context}"])
    with ChatServer(color).running() as server, pytest.raises(BadInput, match=r"prompt .* wants 'context'"):
        evaluate(server.url, [bad, good], options(tmp_path))
    assert list(read_run(tmp_path / "run")[1]) == ["good"]


@pytest.mark.parametrize("kind", ["retrieval", "classification", "rerank", "moments"])
def test_what_an_endpoint_cannot_is_refused_before_it_is_asked(tmp_path: Path, kind: str) -> None:
    card = write_benchmark(tmp_path / "data", [{"color": "red", "captions": ["red"], "answers": ["red"]}], kind=kind)
    says = rf"cannot be measured on squares-test \(kind {kind}\).*expected benchmarks of kind .*caption.*choice.*vqa"
    with pytest.raises(BadInput, match=says):
        evaluate("http://127.0.0.1:9/v1", [card], options(tmp_path))
    assert not (tmp_path / "run").exists()


def test_the_key_is_sent_and_neither_kept_nor_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")
    arguments = ["eval", "--tasks", card, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    arguments += ["--key-from", "MY_KEY", "--model"]
    with ChatServer(color).running() as server:
        assert main([*arguments, server.url]) == 0
        assert set(server.keys) == {"Bearer sk-secret"}
        server.answer = lambda body: (401, {}, {"error": {"message": "wrong key sk-secret"}})
        (tmp_path / "run" / "requests.sqlite").unlink()
        assert main([*arguments, server.url, "--resume"]) == 2
    said = capsys.readouterr()
    assert "401: wrong key ***; the key in $MY_KEY is not taken" in said.err
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"sk-secret" not in kept + said.out.encode() + said.err.encode()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://me:sk-1@127.0.0.1:9/v1", "without a user, a password or a query"),
        ("http://127.0.0.1:9/v1?key=sk-1", "without a user, a password or a query"),
        ("http://127.0.0.1:9/v1", "expected an endpoint that answers"),
    ],
)
def test_an_address_that_is_no_use_is_one_line(tmp_path: Path, url: str, says: str) -> None:
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    with pytest.raises(BadInput, match=says) as raised:
        evaluate(url, [card], options(tmp_path))
    assert "sk-1" not in str(raised.value)


def test_which_model_of_several(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    with ChatServer(color, ("a", "b")).running() as server:
        with pytest.raises(BadInput, match="--model-name: expected one of the 2 models"):
            evaluate(server.url, [card], options(tmp_path))
        [result] = evaluate(server.url, [card], options(tmp_path, model_name="b"))
    assert (result.model, server.bodies[0]["model"]) == ("b", "b")
    with pytest.raises(BadInput, match="--model-name b: expected an endpoint's address"):
        evaluate("nano", [card], options(tmp_path, resume=True, model_name="b"))


def test_newer_servers_name_the_most_tokens_otherwise(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")

    def newer(body: dict[str, Any]) -> Any:
        said = "Unsupported parameter: use 'max_completion_tokens'"
        return (400, {}, {"error": {"message": said}}) if "max_tokens" in body else color(body)

    with ChatServer(newer).running() as server:
        [result] = evaluate(server.url, [card], options(tmp_path))
    assert result.figures["accuracy"].value == 100


def test_replies_that_are_cut_are_counted(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa")
    with ChatServer(lambda body: (200, {}, completion("red and", "length"))).running() as server:
        [result] = evaluate(server.url, [card], options(tmp_path))
    assert "12 of 12 replies were cut at their most tokens" in result.notes


@pytest.mark.parametrize("content", [{"choices": []}, {}, [], "text", {"choices": [{"message": None}]}])
def test_what_is_no_chat_completion_is_one_line(tmp_path: Path, content: Any) -> None:
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    with (
        ChatServer(lambda body: (200, {}, content)).running() as server,
        pytest.raises(VlmError, match="expected OpenAI's chat completions, got 200"),
    ):
        evaluate(server.url, [card], options(tmp_path))


def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 10_000)
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    says = "more than 10000 bytes"
    with ChatServer(lambda body: "red " * 10_000).running() as server, pytest.raises(EndpointGone, match=says):
        evaluate(server.url, [card], options(tmp_path))
