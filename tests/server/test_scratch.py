"""Folders for what strangers send: private, and gone when their process is, however it ends."""

from __future__ import annotations

import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
from chatting import ask, data_url, showing
from serving import CLIP, ServingProcess, picture

from vlm.server.http.scratch import PREFIX, Scratch


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of temporary files, of this process and those that it starts."""
    found = tmp_path / "tmp"
    found.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(found))
    monkeypatch.setenv("TMPDIR", str(found))
    return found


def test_it_is_the_owners_alone_and_goes_when_it_is_closed(place: Path) -> None:
    scratch = Scratch()
    assert list(place.iterdir()) == [scratch.path]
    assert stat.S_IMODE(scratch.path.stat().st_mode) == 0o700
    (scratch.path / "below").mkdir()
    (scratch.path / "below" / "file").write_text("x")
    scratch.close()
    assert list(place.iterdir()) == []


def test_folders_of_nobody_go_and_what_is_something_else_stays(place: Path, tmp_path: Path) -> None:
    living = Scratch()
    (place / f"{PREFIX}left").mkdir()
    (place / f"{PREFIX}left" / "file").write_text("x")
    (place / f"{PREFIX}file").write_text("x")
    (place / "vlm-other").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (place / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    scratch = Scratch()
    expected = {living.path.name, scratch.path.name, f"{PREFIX}file", f"{PREFIX}link", "vlm-other"}
    assert {path.name for path in place.iterdir()} == expected
    assert (tmp_path / "elsewhere").is_dir()
    living.close()
    scratch.close()


def test_those_that_begin_at_the_same_moment_leave_each_other_theirs(place: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: Scratch(), range(200)))
    assert {scratch.path for scratch in made} == set(place.iterdir())
    assert len({scratch.path for scratch in made}) == 200
    for scratch in made:
        scratch.close()


def test_a_folder_that_was_taken_away_before_it_was_locked_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    flock, gone = fcntl.flock, []

    def late(file: int, how: int) -> None:
        if not gone:
            gone.extend(place.iterdir())
            gone[0].rmdir()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    scratch = Scratch()
    assert list(place.iterdir()) == [scratch.path] != gone
    scratch.close()


@pytest.mark.process
def test_what_a_killed_server_left_goes_at_the_next_start_and_a_living_ones_stays(place: Path, tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path / "tiny")
    clip = showing(data_url(CLIP.read_bytes(), "video/mp4"), kind="video_url")

    def started() -> tuple[ServingProcess, Path]:
        before = set(place.glob(f"{PREFIX}*"))
        server = ServingProcess("chat", "--model", str(card), "--offline")
        (own,) = set(place.glob(f"{PREFIX}*")) - before
        return server, own

    killed, left = started()
    (left / "clip.mp4").write_bytes(CLIP.read_bytes())
    living, kept = started()
    assert left.is_dir()
    killed.end(signal.SIGKILL)
    assert (left / "clip.mp4").is_file()
    third, own = started()
    assert not left.exists()
    for server in (living, third):
        assert ask(server.client, model=None, messages=clip, max_frames=2, max_tokens=2).status_code == 200
    assert third.end() == 0
    assert not own.exists()
    assert kept.is_dir()
    assert living.end() == 0
    assert list(place.glob(f"{PREFIX}*")) == []


@pytest.mark.process
def test_what_is_uploaded_to_a_page_is_in_one_too(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (pip: vlm[page])")
    words = ["chat", "--model", str(tiny.write_card(tmp_path / "tiny")), "--offline", "--page"]

    def uploaded(server: ServingProcess) -> Path:
        (name,) = server.client.post("/page/gradio_api/upload", files={"files": ("red.png", picture())}).json()
        file = Path(name)
        folder = place / file.relative_to(place).parts[0]
        assert folder.name.startswith(PREFIX)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert file.read_bytes() == picture()
        return file

    killed = ServingProcess(*words)
    left = uploaded(killed)
    killed.end(signal.SIGKILL)
    assert left.exists()
    server = ServingProcess(*words)
    assert not left.exists()
    uploaded(server)
    assert server.end() == 0
    assert list(place.glob(f"{PREFIX}*")) == []
    assert not (place / "gradio").exists()
