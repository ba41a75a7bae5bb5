"""Inputs on which tools of this kind fail, as people reported them: each gives what is expected of it.

The kinds are tested on inputs of their own in the rooms they belong to; these are the reported files themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stand_in import FakeModel

from vlm.errors import BadInput
from vlm.files import name_path
from vlm.index.flat import FlatIndex

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three of the samples, and the working folder."""
    for name in ("cat.jpg", "panda.jpg", "tower.jpg"):
        shutil.copy(SAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def indexed(vlm_command: Any, source: str | Path, to: str = "out.index") -> tuple[Any, dict[str, dict[str, Any]]]:
    """What `vlm index` says, and the metadata of each entry by its last name."""
    done = vlm_command("index", source, "--to", to, "--json")
    entries = {id.rpartition("/")[2]: dict(metadata) for id, metadata in FlatIndex.open(to).items()}
    for metadata in entries.values():
        metadata.pop("file")
    return done, entries


def test_10_bad_bytes_in_a_name(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    (work / "d").mkdir()
    for number in range(3):
        shutil.copy(work / "cat.jpg", work / "d" / f"{number}.jpg")
    shutil.copy(work / "tower.jpg", os.fsdecode(b"d/caf\xe9.jpg"))
    done, entries = indexed(vlm_command, "d")
    assert (done.code, set(entries)) == (0, {"0.jpg", "1.jpg", "2.jpg", "caf\\xe9.jpg"})
    assert vlm_command("embed", "d", "--to", "d.parquet", "--json").json["count"] == 4


def test_11_a_linked_folder(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    (work / "f").mkdir()
    (work / "real").mkdir()
    shutil.copy("panda.jpg", "real")
    shutil.copy("cat.jpg", "f")
    Path("f/linked").symlink_to("../real")
    assert set(indexed(vlm_command, "f")[1]) == {"cat.jpg", "panda.jpg"}


def test_12_suffixes(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    (work / "u").mkdir()
    for name in ("IMG_0001.HEIC", "a.jxl"):
        shutil.copy(cases / "12-index-unknown-suffix" / name, "u")
    picture = Image.open("cat.jpg")
    picture.save("u/a.tga")
    picture.resize((64, 64)).save("u/a.ico")
    shutil.copy("panda.jpg", "u/without")
    done, entries = indexed(vlm_command, "u")
    assert (done.code, set(entries)) == (2, {"a.tga", "a.ico", "without"})
    reasons = " ".join(row["reason"] for row in done.json["skipped"])
    assert "HEIC" in reasons
    assert "JPEG XL" in reasons


def test_13_several_rows(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    for name in ("captions.csv", "coco.json"):
        shutil.copy(cases / "13-captions-several-rows" / name, work)
    done, entries = indexed(vlm_command, "captions.csv")
    assert entries["cat.jpg"]["caption"] == ["first words of a cat", "second words of a cat", "third words"]
    assert entries["panda.jpg"]["caption"] == ["a panda one", "a panda two"]
    assert done.json["notes"][0]["count"] == 3
    _, entries = indexed(vlm_command, "coco.json", "coco.index")
    assert entries["cat.jpg"]["text"].split("\n")[1:] == ["cap two", "lost caption"]


def test_14_names_of_a_list(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    shutil.copy("panda.jpg", "#1 best.jpg")
    shutil.copy("panda.jpg", "~tmp.jpg")
    (work / "images").mkdir()
    shutil.copy("cat.jpg", "images/c.jpg")
    for name, other in [("l1", "#1 best.jpg"), ("l2", "~tmp.jpg"), ("l4", "c.jpg")]:
        shutil.copy(cases / "14-list-names" / f"{name}.txt", work)
        done, entries = indexed(vlm_command, f"{name}.txt", f"{name}.index")
        assert (done.code, set(entries)) == (0, {"cat.jpg", other})
    shutil.copy(cases / "14-list-names" / "l5.txt", work)
    done, entries = indexed(vlm_command, "l5.txt", "l5.index")  # a drive of Windows
    assert (done.code, set(entries), len(done.json["skipped"])) == (2, {"cat.jpg"}, 1)


def test_15_numbers_of_a_csv(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    shutil.copy(cases / "15-csv-numbers" / "num.csv", work)
    _, entries = indexed(vlm_command, "num.csv")
    assert entries["cat.jpg"] == {"year": 2019, "ok": True, "score": 0.5, "taken": "2024-05-01"}
    for where in ({"year": {"gte": 2020}}, {"taken": {"lt": "2022"}}):
        hits = vlm_command("search", "out.index", "red", "--filter", json.dumps(where), "--json").json["results"]
        assert [Path(hit["path"]).name for hit in hits] == ["panda.jpg"]


def test_16_types_of_parquet(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    pytest.importorskip("pyarrow")
    shutil.copy(cases / "16-parquet-types" / "types.parquet", work)
    done, entries = indexed(vlm_command, "types.parquet")
    cat = entries["cat.jpg"]
    assert (cat["taken"], cat["day"], cat["price"]) == ("2024-05-01T00:00:00", "2024-05-01", 1.5)
    assert cat["geo"] == {"lat": 1.0, "lon": 2.0}
    assert "not finite" in done.json["notes"][0]["note"]


def test_17_cocos_null(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    for name in ("caplist", "coco", "dupid"):
        shutil.copy(cases / "17-coco-null" / f"{name}.json", work)
    assert indexed(vlm_command, "caplist.json", "a.index")[1]["cat.jpg"]["text"] == "a\nb"
    done, entries = indexed(vlm_command, "coco.json", "b.index")
    assert "text" not in entries["panda.jpg"]
    notes = " ".join(row["note"] for row in done.json["notes"])
    assert "captions that are no texts" in notes
    assert "captions of pictures that are not there" in notes
    done, entries = indexed(vlm_command, "dupid.json", "c.index")
    assert not any("text" in metadata for metadata in entries.values())
    assert "an id that several pictures have" in done.json["notes"][0]["note"]


SHARDS = {
    "dots": (0, {"22.05": "cat text", "22.06": "panda text"}),
    "dots2": (0, {"Track 2.0 (clean)": "cat text", "Track 2.1 (clean)": "panda text"}),
    "mac": (0, {"0001": "cat text", "0002": "panda"}),
    "avif": (0, {"1": "x", "2": None, "3": None}),
    "mov": (0, {"1": None, "2": None, "3": None}),
    "multi": (0, {"1.left": "two", "1.right": "two", "2": None}),
    "latin": (0, {"1": "caf\N{REPLACEMENT CHARACTER}", "2": "ok"}),
    "corruptimg": (2, {"2": "ok"}),
    "nocap": (2, {"2": None}),
    "notadj": (2, {"1": None, "2": None}),
}


@pytest.mark.process
def test_18_shards(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    Path("data").mkdir()
    Path("data/samples").symlink_to(SAMPLES)
    Path("img").mkdir()
    Image.open("cat.jpg").save("img/o3.avif")
    Image.open("cat.jpg").save("img/o3.tif")
    Path("vid").mkdir()
    for name, case in [("base.mp4", "base"), ("p.mov", "hflip"), ("ff.mkv", "base")]:
        shutil.copy(cases / "02-video-mirror-matrix" / f"{case}.mp4", f"vid/{name}")
    subprocess.run([sys.executable, cases / "18-shards" / "make.py"], check=True, cwd=work)
    for name, (code, texts) in SHARDS.items():
        done, entries = indexed(vlm_command, f"{name}.tar", f"{name}.index")
        found = {id.partition("#")[2]: metadata.get("text") for id, metadata in entries.items()}
        assert (name, done.code, found) == (name, code, texts)
        assert all(f"{name}.tar" in row["reason"] for row in done.json["skipped"])


def test_20_search_by_a_path(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    vlm_command("index", work, "--to", "out.index")
    shutil.copy("panda.jpg", "without")
    done = vlm_command("search", "out.index", "without", "--top", "1", "--json")
    assert Path(done.json["results"][0]["path"]).name == "panda.jpg"
    assert vlm_command("search", "out.index", "photo.heic").code == 2


@pytest.mark.weights
def test_21_and_22_texts(cases: Path, nano: Any) -> None:
    from vlm.heads.retrieval import Embedder

    embedder = Embedder.of(nano)
    assert embedder is not None
    long = " ".join(["A sentence about a man."] * 60)
    for notes in embedder.text_notes([f"{long} a cat", f"{long} a rocket launching at night"]):
        assert "of which the first 256 are read" in notes[0]
    for notes in embedder.text_notes(["\U0001f600", "\U0001f680"]):
        assert "none of its words" in notes[0]


@pytest.mark.process
def test_23_to_25_folders_of_models(cases: Path, work: Path, vlm_command: Any) -> None:
    sys.path.insert(0, str(TESTS))
    import dual
    from safetensors.torch import load_file, save_file

    import vlm

    dual.save_dual(work / "clip")
    settings = json.loads((work / "clip" / "preprocessor_config.json").read_text())
    (work / "clip" / "preprocessor_config.json").unlink()
    theirs = json.loads((cases / "25-processor-config" / "processor_config.json").read_text())
    theirs["image_processor"] = {**theirs["image_processor"], **settings}
    (work / "clip" / "processor_config.json").write_text(json.dumps(theirs))
    model: Any = vlm.load(work / "clip")
    for call in (lambda: model.embed_texts("cat"), lambda: model.embed_images("/a.jpg"),
                 lambda: model.embed_texts([None]), lambda: model.embed_texts(["\ud800"])):  # fmt: skip
        with pytest.raises(BadInput):
            call()
    tensors = load_file(work / "clip" / "model.safetensors")
    tensors["visual_projection.weight"] *= float("nan")
    save_file(tensors, work / "clip" / "model.safetensors", metadata={"format": "pt"})
    for command in (["embed", "cat.jpg"], ["classify", "cat.jpg", "--names", "red,blue"]):
        done = vlm_command(*command, "--model", work / "clip", "--json")
        assert (done.code, done.out) == (2, "")
        assert "got NaN" in done.err


def test_26_and_27_paths(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    done = vlm_command("caption", "cat.jpg", "A" * 300 + ".jpg", "--json")
    assert (done.code, len(done.json["results"]), len(done.json["skipped"])) == (2, 1, 1)
    for command in (["embed", ""], ["caption", ""], ["classify", "", "--names", "a,b"], ["index", "", "--to", "x"]):
        done = vlm_command(*command)
        assert (done.code, done.out) == (2, "")


def test_28_a_mixture(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    for name in ("dupid", "textonly"):
        shutil.copy(cases / "28-llava-mix" / f"{name}.json", work)
    assert set(indexed(vlm_command, "dupid.json", "a.index")[1]) == {"cat.jpg", "panda.jpg"}
    done, entries = indexed(vlm_command, "textonly.json", "b.index")
    assert set(entries) == {"cat.jpg"}
    assert done.json["notes"][0]["count"] == 1


def test_29_messages(cases: Path, vlm_command: Any, model: FakeModel, work: Path) -> None:
    (work / "v.vob").write_bytes(b"\0\0\1\xba" + bytes(100))
    (work / "w.asf").write_bytes(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(100))
    (work / "p.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")
    done = vlm_command("caption", "v.vob", "w.asf", "p.jpg", "--json")
    said = {name_path(row["input"]): row["reason"] for row in done.json["skipped"]}
    assert "expected a video" in said["v.vob"]
    assert "expected a video" in said["w.asf"]
    assert "git-lfs pointer" in said["p.jpg"]
