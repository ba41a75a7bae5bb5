"""`vlm reindex` killed at any step leaves a whole collection, of one model or the other, and nothing beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from greys import Greys
from serving import picture, served

from vlm.server.embedding.embedder import Colours
from vlm.server.http.settings import Settings

pytestmark = pytest.mark.process
C = "/v1/collections/c"
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import greys
from vlm.cli import main
from vlm.index.flat import FlatIndex
from vlm.server.retrieval import media, reindexing, stored

def counted(place, name, after=False):
    plain = getattr(place, name)
    def step(*given, **named):
        global steps
        found = plain(*given, **named) if after else None
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found if after else plain(*given, **named)
    setattr(place, name, step)

root, steps = Path(sys.argv[1]), 0
while True:
    steps += 1
    to = root.with_name(f"{root.name}-{steps}")
    shutil.copytree(root, to)
    if not (child := os.fork()):
        for place, name in ((media.Media, "keep_again"), (FlatIndex, "commit"), (reindexing, "sweep"),
                            (stored.About, "write"), (shutil, "rmtree"), (media.Media, "sweep")):
            counted(place, name)
        counted(stored.About, "write", after=True)
        os._exit(main(["reindex", str(to), "--model", "greys"]))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(to.name, status, flush=True)
    if status != -signal.SIGKILL:
        sys.exit(status)
"""


def test_a_kill_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    pictures = [picture((80 * n, 80 * n, 80 * n)) for n in range(3)]
    with served(Settings(root=tmp_path / "root", originals=True, engine="flat"), Colours) as client:
        for n, content in enumerate(pictures):
            client.post(f"{C}/items", files={"file": ("a.png", content)}, data={"id": str(n)})
    words = [sys.executable, "-c", KILLED, str(tmp_path / "root")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    models = []
    for name in re.findall(r"^root-\d+", done.stdout, flags=re.M):
        with served(Settings(root=tmp_path / name), Colours, Greys) as client:
            about = client.get(C).json()
            models.append(about["model"])
            assert about["count"] == 3
            for n, content in enumerate(pictures):
                assert client.get(f"{C}/thumbnails/{n}").status_code == 200
                asked = {"image": b64encode(content).decode(), "filter": {"_name": "a.png"}, "top": 3}
                hits = client.post(f"{C}/search", json=asked).json()["hits"]
                assert {hit["id"]: hit["score"] for hit in hits}[str(n)] == pytest.approx(1, abs=1e-5)
        folder = tmp_path / name / "collections" / "c"
        assert len(list(folder.glob("index*"))) == 1
        assert len(list((folder / "media").glob("*/*"))) == 6  # of each a small picture and the original
        assert not list(folder.glob(".*"))
    # Killed before the swap, after it, and at last not at all.
    assert models == sorted(models)
    assert models.count("colours") > 4
    assert models.count("greys") > 2
