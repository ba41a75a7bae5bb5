"""The container file and its page, as far as that goes without a container: what is copied becomes the wheel, and what
is started starts from it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import typer
from wheels_installed import PIP, environment

from vlm.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "container.md"
CLEAN = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VLM_SERVER_KEY")}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


FILE = instructions()


def only(name: str) -> str:
    (found,) = [words for what, words in FILE if what == name]
    return found


def test_the_file_follows_the_rules() -> None:
    known = "FROM ARG WORKDIR COPY RUN VOLUME ENV USER EXPOSE HEALTHCHECK ENTRYPOINT CMD".split()
    assert {name for name, _ in FILE} <= set(known)
    assert all(re.search(r":\d+\.\d+", words) for name, words in FILE if name == "FROM"), "a version each"
    assert int(only("USER")) >= 10000
    names = [name for name, _ in FILE]
    assert max(i for i, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER") < names.index("CMD")
    assert all("--no-cache-dir" in words for name, words in FILE if name == "RUN" and "pip " in words)
    (home,) = [words for name, words in FILE if name == "VOLUME"]
    command = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    written = [word for word in command if word.startswith("/")] + re.findall(r"=(/data\S*)", only("ENV"))
    assert all(word.startswith(home) for word in written)
    assert "--keys" in command
    assert json.loads(only("HEALTHCHECK").partition(" CMD ")[2])[0] == "python"


def test_what_is_copied_is_there() -> None:
    for name, words in FILE:
        if name == "COPY" and "--from" not in words:
            assert all((ROOT / source).exists() for source in words.split()[:-1]), words


def page_commands() -> list[str]:
    return [
        line
        for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
        for line in block.splitlines()
    ]


def test_the_page_and_the_file_agree() -> None:
    runs = [shlex.split(line) for line in page_commands() if line.startswith("docker run")]
    (built,) = [shlex.split(line) for line in page_commands() if line.startswith("docker build")]
    assert (ROOT / built[built.index("--file") + 1]).is_file()
    image = built[built.index("--tag") + 1]
    for words in runs:
        assert words[words.index("--volume") + 1].endswith(":" + only("VOLUME"))
        assert image in words[words.index("--volume") + 2 :]
    served = next(words for words in runs if "--detach" in words)
    assert served[served.index("--publish") + 1].endswith(":" + only("EXPOSE"))
    options = {name for one in typer.main.get_command(app).commands["serve"].commands["retrieval"].params  # type: ignore[attr-defined]
               for name in one.opts}  # fmt: skip
    command = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    assert {word for word in command if word.startswith("--")} <= options
    assert set(re.findall(r"`vlm (--.*?)`", PAGE.read_text())[0].split()[::2]) <= options


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel made of what is copied, and of nothing else of the clone."""
    home = tmp_path_factory.mktemp("image")
    source, wheels = home / "source", home / "wheels"
    source.mkdir()
    for name, words in FILE:
        if name == "COPY" and "--from" not in words:
            *names, to = words.split()
            for each in names:
                if (ROOT / each).is_dir():
                    shutil.copytree(ROOT / each, source / to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / each, source / to)
    (build,) = [words for name, words in FILE if name == "RUN" and words.startswith("pip wheel")]
    words = [str(wheels) if word == "/wheels" else word for word in shlex.split(build)[1:]]
    subprocess.run([*PIP, *words, "--no-build-isolation"], check=True, cwd=source)
    (install,) = [words for name, words in FILE if name == "RUN" and "/wheels/vlm-" in words]
    (wheel,) = wheels.glob(re.findall(r"/wheels/(\S+?\.whl)", install)[0])
    return environment(home, wheel)


@pytest.mark.process
def test_what_the_image_starts_serves_the_page(installed: Path, tmp_path: Path) -> None:
    volume = tmp_path / "data"
    volume.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def here(words: str) -> str:
        return words.replace("/data/", f"{volume}/").replace("8000", port)

    environment = CLEAN | dict(item.split("=", 1) for item in here(only("ENV") + " ").split())
    environment |= {"HOME": str(volume), "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}"}
    command = json.loads(here(only("ENTRYPOINT")))
    command[0] = str(installed / command[0])
    bare = subprocess.run([*command, "--model", "colours"], cwd=volume, env=environment, capture_output=True, text=True)
    assert bare.returncode == 2
    assert "expected a file of keys" in bare.stderr.splitlines()[-1]

    (making,) = [shlex.split(line)[-1] for line in page_commands() if "secrets" in line]
    made = subprocess.run(
        ["sh", "-c", here(making)], cwd=volume, env=environment, check=True, capture_output=True, text=True
    )
    key = made.stdout.removeprefix("write ").strip()
    assert (volume / "keys").stat().st_mode & 0o777 == 0o600

    server = subprocess.Popen([*command, "--model", "colours", "--no-page"], cwd=volume, env=environment)
    try:
        check = json.loads(here(only("HEALTHCHECK")).partition(" CMD ")[2])
        until = time.monotonic() + 120
        while subprocess.run([installed / "python", *check[1:]], env=environment, capture_output=True).returncode:
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.5)
        asks = [line for line in page_commands() if line.startswith(("curl", "vlm"))]
        assert len(asks) == 3
        for line in asks:
            done = subprocess.run(
                ["bash", "-c", here(line)], cwd=ROOT, env=environment | {"VLM_SERVER_KEY": key},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert '{"error"' not in done.stdout, done.stdout
        assert json.loads(done.stdout)["hits"]
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
