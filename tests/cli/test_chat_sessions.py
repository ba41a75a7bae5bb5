"""`vlm chat --session FILE`: a conversation that goes on in another process, with its pictures and clips."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

import vlm
from vlm.cli import main
from vlm.facade import Model

CLIP = Path(__file__).parents[2] / "data" / "samples" / "city_at_night.mp4"
VLM = "import sys; from vlm.cli import main; sys.exit(main())"
Chat = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: the card's own projector is another one each time."""
    folder = tmp_path_factory.mktemp("tiny")
    return vlm.load(tiny.write_card(folder / "card")).save(folder / "model")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.effect_noise((50, 40), 90).convert("RGB").save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


@pytest.fixture
def chat(saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chat:
    """The exit code and what is said on both, of `vlm chat` with these words and lines."""

    def run(*words: Any, lines: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        code = main(["chat", *map(str, words), "--model", str(saved), "--max-tokens", "8", "--offline"])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def encoded(model: Model) -> int:
    assert model.writer is not None
    return model.writer.replies.engine(1).pictures.encoded


def test_a_conversation_goes_on_as_if_it_had_not_ended(chat: Chat, picture: Path, tmp_path: Path) -> None:
    turns = ["What color is it?", f"/image {CLIP}", "And this?", "Is there a dog?"]
    options = ("--system", "Be brief.")
    _, whole, _ = chat(picture, *options, lines="\n".join(turns))
    session = tmp_path / "a.session"
    code, first, said = chat(picture, *options, "--session", session, lines="\n".join(turns[:3]))
    assert (code, "goes on" in said) == (0, False)
    code, rest, said = chat("--session", session, lines=turns[3])
    assert (code, first + rest) == (0, whole)
    assert f"{session}: goes on after 2 turns about 2 pictures and clips" in said
    _, _, said = chat("--session", session, "And now?")
    assert "goes on after 3 turns about 2 pictures and clips" in said


def test_nothing_of_it_is_encoded_or_read_again(saved: Path, chat: Chat, picture: Path, tmp_path: Path) -> None:
    session = tmp_path / "a"
    chat(picture, CLIP, "--session", session, "What color is <image>, and what is <image>?")
    model = vlm.load(saved)
    messages = model.sessions.restore(session)
    said = model.chat([*messages, {"role": "user", "content": "Sure?"}], max_tokens=8)
    assert encoded(model) == 0
    assert vlm.load(saved).chat([*messages, {"role": "user", "content": "Sure?"}], max_tokens=8) == said


def test_what_does_not_fit_is_a_line_and_the_file_stays(
    chat: Chat, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = tmp_path / "a"
    chat(picture, "--session", session, "--system", "Be brief.", "What color?")
    content = session.read_bytes()

    def refused(*words: Any, lines: str = "") -> str:
        code, out, said = chat("--session", session, *words, lines=lines)
        assert (code, out, said.count("\n")) == (2, "", 1), said
        return said

    assert "--system: expected that of the conversation in" in refused("--system", "Be long.", "And now?")
    assert session.read_bytes() == content
    session.write_bytes(content[:-9])
    assert "not a session" in refused("And now?")
    session.write_bytes(b"{}")
    assert "not a session" in refused(lines="And now?")
    session.unlink()
    session.mkdir()
    assert "no regular file" in refused("And now?")


def test_another_model_is_refused_and_other_kernels_read_anew(
    chat: Chat, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm.engine.sessions import identity

    session = tmp_path / "a"
    chat(picture, "--session", session, "What color?")
    content = session.read_bytes()
    other = vlm.load(tiny.write_card(tmp_path / "card"))
    other.model.language.embedding.weight.data *= 1.5
    other.save(tmp_path / "other")
    code = main(["chat", "--session", str(session), "Hello", "--model", str(tmp_path / "other"), "--offline"])
    done = capsys.readouterr()
    assert (code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert "expected a session of model tiny, got one of weights" in done.err
    assert session.read_bytes() == content
    _, expected, _ = chat("--session", session, "And now?")
    session.write_bytes(content)
    monkeypatch.setattr(identity, "cpu", lambda: ("another", set()))
    code, out, said = chat("--session", session, "And now?")
    assert (code, out) == (0, expected)
    assert f"{session}: is read anew, since products have other last digits here: cpu" in said


def test_a_file_that_cannot_be_written_is_told_and_the_rest_is_asked(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, said = chat("--session", tmp_path / "file" / "a", lines="Hello\nBye\n")
    assert (code, len(out.splitlines()) >= 2) == (2, True)
    assert said.count("expected a file that can be written") == 2


@pytest.mark.process
def test_a_pipe_that_is_killed_has_the_turns_that_were_whole(saved: Path, picture: Path, tmp_path: Path) -> None:
    session = tmp_path / "a"
    words = [sys.executable, "-c", VLM, "chat", "--model", str(saved), "--max-tokens", "4", "--session", str(session)]
    words += ["--temperature", "2", "--seed", "1"]  # nothing is kept of a reply that is empty
    process = subprocess.Popen(
        [*words, str(picture)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for turn in range(1, 4):
        before = session.stat().st_mtime_ns if session.exists() else 0
        process.stdin.write(b"What color is it?\n")
        process.stdin.flush()
        until = time.monotonic() + 60
        while not session.exists() or session.stat().st_mtime_ns == before:
            assert process.poll() is None
            assert time.monotonic() < until, f"turn {turn}"
            time.sleep(0.01)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    done = subprocess.run(words, input="And now?\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "goes on after 3 turns about 1 pictures and clips" in done.stderr
