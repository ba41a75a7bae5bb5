"""`vlm reindex`: what was uploaded to one model's collection is what a fresh upload to another's would be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greys  # makes the model known, as `--module greys` does
import httpx
import numpy as np
import pytest
from serving import CLIP, REPOSITORY, VLM, ids, picture, served, unit

from vlm.cli import main
from vlm.server.embedding.embedder import Colours, loaded
from vlm.server.http.settings import Settings
from vlm.server.retrieval.alone import alone

C = "/v1/collections/c"
Greys = greys.Greys


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    media = tmp_path / "media"
    media.mkdir()
    (media / "named.png").write_bytes(picture("olive"))
    (media / "named.mp4").write_bytes(CLIP.read_bytes())
    return Settings(root=tmp_path / "root", media=(media,), originals=True, engine="flat")


def fill(client: httpx.Client, name: str = "c") -> None:
    """An item of each kind that has an original."""
    to = f"/v1/collections/{name}/items"
    for id, colour in (("red", "red"), ("teal", "teal")):
        form = {"id": id, "metadata": json.dumps({"of": colour})}
        assert client.post(to, files={"file": (f"{id}.png", picture(colour))}, data=form).is_success
    assert client.post(to, files={"file": ("clip.mp4", CLIP.read_bytes())}, data={"id": "clip"}).is_success
    for item in ({"id": "named", "path": "named.png"}, {"id": "film", "path": "named.mp4"}, {"text": "a green lawn"}):
        assert client.post(to, json=item).is_success


def entries(client: httpx.Client, name: str = "c") -> dict[str, tuple[dict, list[float]]]:
    found = client.get(f"/v1/collections/{name}/items", params={"vectors": True}).json()["items"]
    return {item["id"]: (item["metadata"], item["vector"]) for item in found}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], settings: Settings) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """The exit code of `vlm reindex ROOT --model greys --json`, what it printed, and what it told."""

    def run(*options: object, media: bool = True) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        below = ["--media", str(settings.media[0])] if media else []
        code = main(["reindex", str(settings.root), "--model", "greys", "--json", *below, *map(str, options)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return run


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("engine", ["flat", "lance"])
def test_it_is_what_a_fresh_upload_is(settings: Settings, run: Any, tmp_path: Path, engine: str) -> None:
    settings = settings.model_copy(update={"engine": engine})
    with served(settings, Colours) as client:
        fill(client)
        before = entries(client)
        shown = {id: client.get(f"{C}/thumbnails/{id}").content for id in ("red", "clip", "film", "named")}
        client.post(f"{C}/snapshots")
    code, out, err = run()
    assert (code, out["collections"]) == (
        0,
        [{"name": "c", "status": "reindexed", "items": 6, "snapshots": 1, "left_out": []}],
    )
    assert "c: snapshots of the old model are gone: 1" in err
    with served(settings.model_copy(update={"root": tmp_path / "fresh"}), Greys) as client:
        fill(client)
        fresh = entries(client)
    with served(settings, Greys) as client:
        after = entries(client)
        assert client.get(C).json() == {"name": "c", "count": 6, "model": "greys", "width": 16}
        assert client.get(f"{C}/snapshots").json() == {"snapshots": []}
        assert {id: client.get(f"{C}/thumbnails/{id}").content for id in shown} == shown
        assert client.get(f"{C}/videos/clip").content == CLIP.read_bytes()
        hits = client.post(f"{C}/search", json={"text": "black", "top": 2}).json()["hits"]
        assert {hit["id"] for hit in hits} == {"clip", "film"}
        assert all(hit["moment"] for hit in hits)
        assert ids(client.post(f"{C}/search", json={"id": "red", "filter": {"of": "teal"}})) == ["teal"]
        assert client.post(f"{C}/items", json={"text": "more"}).is_success
    assert {id: row for id, (row, _) in after.items()} == {id: row for id, (row, _) in before.items()}
    assert after.keys() == fresh.keys()
    for id, (_, vector) in after.items():
        np.testing.assert_array_equal(vector, fresh[id][1])
    folder = settings.root / "collections" / "c"
    assert len(list(folder.glob("index*"))) == 1
    kept = [path.suffix for path in (folder / "media").rglob("*") if path.is_file()]
    expected = {".original": 2, ".jpg": 5, ".mp4": 1, ".frames": 2}
    assert {suffix: kept.count(suffix) for suffix in set(kept)} == expected
    assert run() == (0, {"model": "greys", "collections": [
        {"name": "c", "status": "unchanged", "items": 7, "snapshots": 0, "left_out": []}]}, "")  # fmt: skip


def test_only_what_is_named_is_done(settings: Settings, run: Any) -> None:
    with served(settings, Colours) as client:
        for name in ("a", "b"):
            client.post(f"/v1/collections/{name}/items", json={"text": "red", "id": "red"})
    code, out, _ = run("--collection", "b")
    assert (code, [(one["name"], one["status"]) for one in out["collections"]]) == (0, [("b", "reindexed")])
    with served(settings, Colours, Greys) as client:
        assert [client.get(f"/v1/collections/{name}").json()["model"] for name in "ab"] == ["colours", "greys"]


def test_items_without_an_original_keep_it_as_it_is(settings: Settings, run: Any) -> None:
    with served(settings.model_copy(update={"originals": False}), Colours) as client:
        fill(client)
        for n in range(3):
            client.post(f"{C}/items", json={"id": f"v{n}", "vector": unit(1, n)})
        fill(client, "whole")
        client.post("/v1/collections/whole/items/delete", json={"ids": ["red", "teal"]})
    (settings.media[0] / "named.png").write_bytes(picture("navy"))
    (clip,) = (settings.root / "collections" / "c" / "media").rglob("*.mp4")
    clip.unlink()
    before = files(settings.root / "collections" / "c")
    code, out, err = run("--collection", "c")
    assert code == 2
    assert out["collections"][0]["without_original"] == {
        "a vector without what it was made of": 3,
        "its picture was not kept as it came (vlm serve retrieval --keep-originals)": 2,
        "its clip has gone": 1,
        "its file below --media is another one": 1,
    }
    assert err.count("\n") == 1
    assert "c: left as it is: 3 of 9 items: a vector without" in err
    assert "--leave-out" in err
    assert run("--collection", "c", media=False)[1]["collections"][0]["without_original"][
        "its file was named by a path; expected --media DIR"
    ] == 2  # fmt: skip
    assert files(settings.root / "collections" / "c") == before
    code, out, _ = run()  # one that is refused keeps no other from it, but for the file that is another one
    assert (code, {one["name"]: one["status"] for one in out["collections"]}) == (
        2,
        {"c": "refused", "whole": "refused"},
    )
    (settings.media[0] / "named.png").write_bytes(picture("olive"))
    code, out, _ = run()
    assert (code, {one["name"]: one["status"] for one in out["collections"]}) == (
        2,
        {"c": "refused", "whole": "reindexed"},
    )
    code, out, err = run("--leave-out")
    assert code == 2
    assert {row["id"] for row in out["collections"][0]["left_out"]} == {"v0", "v1", "v2", "red", "teal", "clip"}
    assert "note: c/v0: left out: a vector without what it was made of (2 more like it)" in err
    assert out["notes"][0]["count"] in (1, 2, 3)
    with served(settings, Greys) as client:
        assert len(entries(client)) == 3
        assert len(entries(client, "whole")) == 4


def test_one_of_which_nothing_would_be_left_is_refused(settings: Settings, run: Any) -> None:
    with served(settings, Colours) as client:
        client.post(f"{C}/items", json={"id": "v", "vector": unit(1)})
    code, out, _ = run("--leave-out")
    assert (code, out["collections"][0]["status"]) == (2, "refused")
    with served(settings, Colours) as client:
        assert list(entries(client)) == ["v"]


def test_an_original_that_cannot_be_read_any_more_changes_nothing(settings: Settings, run: Any) -> None:
    with served(settings, Colours) as client:
        fill(client)
    folder = settings.root / "collections" / "c"
    next((folder / "media").rglob("*.original")).write_bytes(b"damaged")
    before = files(folder)
    code, out, _ = run()
    (reason,) = out["collections"][0]["without_original"]
    assert (code, out["collections"][0]["status"]) == (2, "refused")
    assert "picture" in reason or "image" in reason
    assert files(folder) == before
    code, out, _ = run("--leave-out")
    assert (code, len(out["collections"][0]["left_out"])) == (2, 1)


def test_bad_use_is_one_line(settings: Settings, run: Any, tmp_path: Path) -> None:
    with served(settings, Colours) as client:
        client.post(f"{C}/items", json={"text": "red"})
    for options, told in (
        (["--collection", "d"], "unknown collection 'd'"),
        (["--model", "nanoo"], "nanoo"),
        (["--media", tmp_path / "none"], "expected a folder"),
    ):
        code, _, err = run(*options)
        assert (code, err.count("\n")) == (2, 1)
        assert told in err
    assert main(["reindex", str(tmp_path / "none"), "--model", "greys"]) == 2
    assert main(["reindex", str(settings.media[0]), "--model", "greys"]) == 2
    with alone(settings.root):
        code, _, err = run()
    assert code == 2
    assert "no other server" in err


def test_a_server_keeps_originals_only_where_it_is_told_to(settings: Settings) -> None:
    def kept() -> int:
        return len(list(settings.root.rglob("*.original")))

    with served(settings.model_copy(update={"originals": False}), Colours) as client:
        fill(client)
        assert kept() == 0
    with served(settings, Colours) as client:
        fill(client)
        assert kept() == 2  # of the two that were uploaded, not of what was named
        client.delete(f"{C}/items/red")
        assert kept() == 1
        assert all("_sha256" not in row for row, _ in entries(client).values())


@pytest.mark.process
@pytest.mark.weights
def test_nano_makes_of_it_what_it_makes_of_an_upload(settings: Settings, tmp_path: Path) -> None:
    def fill_with_photographs(client: httpx.Client) -> None:
        client.post(f"{C}/items", json={"text": "a cup of coffee"})
        for name in ("cat", "coffee"):
            content = (REPOSITORY / f"data/samples/{name}.jpg").read_bytes()
            client.post(f"{C}/items", files={"file": (f"{name}.jpg", content)}, data={"id": name})

    with served(settings, Colours) as client:
        fill_with_photographs(client)
    words = ["reindex", str(settings.root), "--model", "nano"]
    done = subprocess.run([sys.executable, "-c", VLM, *words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "c: 3 embedded anew by nano, 0 left out\n"), done.stderr
    nano = loaded("nano")
    with served(settings, lambda: nano) as client:
        after = entries(client)
    with served(settings.model_copy(update={"root": tmp_path / "fresh"}), lambda: nano) as client:
        fill_with_photographs(client)
        fresh = entries(client)
    for id, (_, vector) in fresh.items():
        np.testing.assert_allclose(after[id][1], vector, atol=1e-5)
