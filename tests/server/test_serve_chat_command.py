"""`vlm serve chat`: what it refuses to start on, what it serves, and how it ends."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import pytest
import tiny
from chatting import CHAT, HELLO, data_url, openai_client, showing
from serving import REPOSITORY, ServingProcess, error, picture

import vlm
from vlm.cli import main

KEY = "k" * 20


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text("read short")
    for options in (
        ["--host", "0.0.0.0"],
        ["--keys", tmp_path / "keys"],
        ["--media", tmp_path / "none"],
        ["--model", "nanoo"],
        ["--cors", "*"],
        ["--device", "abacus"],
    ):
        assert main([str(word) for word in ["serve", "chat", "--port", "0", "--no-page", *options]]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.process
def test_a_model_that_does_not_write_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import dual

    dual.save_dual(tmp_path / "clip", "clip")
    assert main(["serve", "chat", "--port", "0", "--model", str(tmp_path / "clip")]) == 2
    assert "expected one that writes" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.process
def test_a_card_is_served_with_keys_and_ends_when_its_replies_are_whole(tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path / "tiny")
    (tmp_path / "keys").write_text(f"read {KEY}")
    log = tmp_path / "access.jsonl"
    words = ["chat", "--model", str(card), "--keys", str(tmp_path / "keys"), "--access-log", str(log), "--offline"]
    server = ServingProcess(*words)
    client = server.client
    assert error(client.post(CHAT, json={"messages": HELLO}))[0] == 401
    client.headers["Authorization"] = f"Bearer {KEY}"
    seen = client.post(CHAT, json={"messages": showing(data_url(picture())), "max_tokens": 3}).json()
    assert (seen["model"], seen["usage"]["media"][0]["image_tokens"]) == ("tiny", 4)
    body = {"messages": HELLO, "max_tokens": 200, "stream": True, "logit_bias": {"70": 100}}
    with client.stream("POST", CHAT, json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(server.process.pid, signal.SIGTERM)
        rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(60) == 0
    asked = [one for line in log.read_text().splitlines() if (one := json.loads(line))["method"] == "POST"]
    assert asked[1]["image"] == 4
    assert asked[1]["reply"] <= 3
    assert [(one["path"], one["status"]) for one in asked] == [
        (CHAT, 401), (CHAT, 200), (CHAT, 200),
    ]  # fmt: skip


@pytest.mark.process
@pytest.mark.weights
def test_nano_answers_openai_s_client_as_it_answers_without_a_server() -> None:
    pytest.importorskip("openai", reason="openai is not installed (pip: vlm[dev])")
    samples = REPOSITORY / "data" / "samples"
    server = ServingProcess("chat", "--model", "nano", "--media", str(samples))
    model = vlm.load("nano")
    question = "What animal is it?"
    with openai_client(server.client) as client:
        for name in ("cat", "koala"):
            photo = base64.b64encode((samples / f"{name}.jpg").read_bytes()).decode()
            content = [
                {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}},
                {"type": "text", "text": question},
            ]
            messages = [{"role": "user", "content": content}]
            stream = client.chat.completions.create(model="nano", messages=messages, stream=True, max_tokens=32)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            own = [{"type": "image", "image": samples / f"{name}.jpg"}, {"type": "text", "text": question}]
            assert said.strip() == model.chat([{"role": "user", "content": own}], max_tokens=32)
    files = {"file": ("city.mp4", (samples / "city_at_night.mp4").read_bytes())}
    assert (
        server.client.post("/caption", files=files).json()["caption"]
        == model.caption([samples / "city_at_night.mp4"])[0]
    )
    assert server.end() == 0
