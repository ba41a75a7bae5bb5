"""Tables, shards, arrays and folders that are broken, hostile or not what the card says: one line that says where."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from original_files import picture, pictures, put, put_csv, put_parquet
from reading import QUESTION, read, refused, row

from vlm.datasets.readers import media, shards, tables


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"i,q,a\n0.png,What?\n", "record 1: 2 values; expected 3 (i, q, a)"),
        (b"i,q,a\n0.png,\xff,b\n", "record 1: column q: not UTF-8"),
        (b'i,q,a\n0.png,"What?,b\n', "not a table in UTF-8: unexpected end of data"),
        (b"x,y\n1,2\n", "record 1: no key 'i'; it has x, y"),
        (b"", "no example of split 'test'"),
    ],
)
def test_csv(own: Path, content: bytes, words: str) -> None:
    put(own / "a.csv", content)
    refused(own, words, "a.csv", format="csv", fields=QUESTION)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("§" * 100, "column i: not base64"),
        ("QUJD" * 50, "record 1: expected a picture's bytes, got a file that begins with b'ABCABCABCABC"),
        ("12", "files of dataset own are missing, such as 12"),
    ],
)
def test_base64(own: Path, cell: str, words: str) -> None:
    put_csv(own / "a.tsv", "i q a", (cell, "What?", "that"), delimiter="\t")
    refused(own, words, "a.tsv", format={"name": "tsv", "base64": ["i"]}, fields=QUESTION)


def test_parquet(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = row(i={"bytes": picture(0), "path": None})
    put_parquet(own / "a.parquet", [good, row(i={"bytes": None, "path": "1.png"})])
    kept, named = read(own, "a.parquet", format="parquet", fields=QUESTION)
    assert kept.pictures[0].read_bytes() == picture(0)
    assert named.pictures == (own / "1.png",)
    for broken in (b"PAR1", (own / "a.parquet").read_bytes()[:-20], b""):
        put(own / "b.parquet", broken)
        refused(own, "b.parquet: not a parquet file", "b.parquet", format="parquet", fields=QUESTION)
    put_parquet(own / "c.parquet", [row(i={"bytes": b"no picture", "path": "../0.png"})])
    refused(own, "record 1: expected a picture's bytes", "c.parquet", format="parquet", fields=QUESTION)
    put_parquet(own / "c.parquet", [row(i={"bytes": None, "path": "../../0.png"})])
    refused(own, "leads out of", "c.parquet", format="parquet", fields=QUESTION)
    monkeypatch.setattr(media, "MAX_MEDIA_BYTES", 10)
    refused(own, "record 1: a picture of", "a.parquet", format="parquet", fields=QUESTION)
    monkeypatch.setattr(tables, "MAX_GROUP_BYTES", 10)
    refused(own, "row group of", "a.parquet", format="parquet", fields=QUESTION)


def put_tar(path: Path, *members: tuple[str, bytes], form: str = "w") -> None:
    with tarfile.open(path, form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("form", ["w", "w:gz"])
def test_webdataset(own: Path, form: str) -> None:
    for shard in range(2):
        members = [
            member
            for n in (2 * shard, 2 * shard + 1)
            for member in (
                (f"x/{n}.jpg", picture(n, "JPEG")),
                (f"x/{n}.txt", b" A picture. \n"),
                (f"x/{n}.json", json.dumps({"key": n}).encode()),
                (f"x/{n}.npy", b"passed over"),
            )
        ]
        put_tar(own / f"{shard:05d}.tar", *members, form=form)
    examples = read(own, "*.tar", format="webdataset", fields={"meta": {"key": "json.key"}})
    assert [example.id for example in examples] == ["x/0", "x/1", "x/2", "x/3"]
    assert examples[3].captions == ("A picture.",)
    assert examples[3].meta == {"key": 3, "part": "00001"}
    assert examples[3].pictures[0].read_bytes() == picture(3, "JPEG")


def test_webdataset_that_is_hostile(own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(words: str, *members: tuple[str, bytes]) -> None:
        put_tar(own / "a.tar", *members)
        refused(own, words, "a.tar", format="webdataset")

    image = ("0.jpg", picture(0, "JPEG"))
    broken("sample 0: no key 'txt'", image)
    broken("member 0.txt: not UTF-8", image, ("0.txt", b"\xff"))
    broken("member 0.json: not JSON", image, ("0.json", b"{"))
    broken("member 0.png: a second image of its sample", image, ("0.png", picture(0)))
    broken("sample 0: expected a picture's bytes", ("0.jpg", b"#!/bin/sh"), ("0.txt", b"a"))
    broken(
        "id '0' is there twice", image, ("0.txt", b"a"), ("1.jpg", picture(1)), ("1.txt", b"a"), image, ("0.txt", b"b")
    )
    # A member's name is an id and nothing more: no file appears under it.
    put_tar(own / "a.tar", ("../../escaped.jpg", picture(0, "JPEG")), ("../../escaped.txt", b"a"))
    (example,) = read(own, "a.tar", format="webdataset")
    assert example.pictures[0].is_relative_to(tmp_path / "cache")
    assert not list(tmp_path.rglob("escaped*"))
    content = (own / "a.tar").read_bytes()
    for cut in (b"", content[:700], b"\x1f\x8b\x08" + content[3:900]):
        put(own / "b.tar", cut)
        refused(own, "b.tar", "b.tar", format="webdataset")
    link = tarfile.TarInfo("1.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(own / "c.tar", "w") as archive:
        archive.addfile(link)
    refused(own, "no example of split", "c.tar", format="webdataset")
    monkeypatch.setattr(shards, "MAX_MEDIA_BYTES", 100)
    refused(own, "expected at most 100", "a.tar", format="webdataset")


PIXELS = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (PIXELS, None, "no array 'test_labels'; it has test_images"),
        (PIXELS.astype(np.float32), np.zeros(2, int), "pixels are float32 [4, 4]"),
        (np.zeros((2, 4, 4, 4), np.uint8), np.zeros(2, int), "pixels are uint8 [4, 4, 4]"),
        (PIXELS, np.zeros(3, int), "expected 3 pictures"),
        (PIXELS, np.zeros((2, 2), int), "test_labels is int64 [2, 2]"),
        (PIXELS, np.zeros(2), "test_labels is float64 [2]"),
        (PIXELS, np.array([0, 9]), "picture 1: class '9'"),
        (PIXELS, np.array([0, -1]), "picture 1: class '-1'"),
        (np.array([{}, {}]), np.zeros(2, int), "not an archive of plain arrays"),
    ],
)
def test_npz(own: Path, images: np.ndarray, labels: np.ndarray | None, words: str) -> None:
    arrays = {"test_images": images} | ({} if labels is None else {"test_labels": labels})
    np.savez(own / "a.npz", **arrays)
    refused(own, words, "a.npz", format="npz", classes=["cat", "dog"])


def test_npz_that_is_no_npz(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(own / "a.npz", test_images=np.zeros((2, 64, 64), np.uint8), test_labels=np.zeros(2, int))
    content = (own / "a.npz").read_bytes()
    for broken in (b"", b"PK", content[:-30], content[:200] + b"\1" * 200 + content[400:]):
        put(own / "b.npz", broken)
        refused(own, "b.npz: not an archive of plain arrays", "b.npz", format="npz")
    monkeypatch.setattr("vlm.datasets.readers.arrays.MAX_ARRAY_BYTES", 100)
    refused(own, "expected at most 100", "a.npz", format="npz")


def test_cifar(own: Path) -> None:
    put(own / "a.bin", bytes(3073 + 5))
    refused(own, "a.bin: 3078 bytes; expected a multiple of 3073", "a.bin", format="cifar")
    put(own / "a.bin", bytes([7]) + bytes(3072))
    refused(own, "picture 0: class '7'", "a.bin", format="cifar", classes=["cat", "dog"])


def test_folders_of_classes(own: Path) -> None:
    pictures(own / "test", "dog/0.png", "cat/0.png", "cat/1.png")
    put(own / "test" / "cat" / "notes.txt", "no picture")
    examples = read(own, "{split}", format="folder", classes=["cat", "dog"])
    assert [(e.id, e.answers) for e in examples] == [
        ("cat/0.png", ("cat",)),
        ("cat/1.png", ("cat",)),
        ("dog/0.png", ("dog",)),
    ]
    refused(
        own,
        "cat/0.png: class 'cat'; expected a name or number of the card's 2 classes",
        "test",
        format="folder",
        classes=["lion", "wolf"],
    )
    refused(own, "2 class folders; expected 3", "test", format={"name": "folder", "classes": 3})
    refused(own, "expected a folder of one folder a class", "0.png", format="folder")


def test_captions_a_line(own: Path) -> None:
    """Flickr8k's own list: `file#number`, a tab, a caption with quotation marks of its own."""
    put(own / "a.txt", '0.png\tA "dog" runs.\n1.png\tA cat.\n0.png\tIt"s fast.\n')
    form = {"name": "tsv", "columns": ["file", "text"], "quotes": False}
    first, second = read(own, "a.txt", format=form, fields={"image": "file", "captions": "text"}, group="file")
    assert (first.id, first.captions) == ("0.png", ('A "dog" runs.', 'It"s fast.'))
    assert second.captions == ("A cat.",)
