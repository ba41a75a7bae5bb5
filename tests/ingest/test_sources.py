"""Each kind of collection gives its pictures, where they are, and what it says of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vlm.errors import BadInput
from vlm.ingest.reading import read, stamp_of
from vlm.ingest.sources import Item, open_source


def png(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(stream, "PNG")
    return stream.getvalue()


def items(place: Path, **options: object) -> list[Item]:
    return list(open_source(str(place), **options).items)  # type: ignore[arg-type]


def test_a_folder_is_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.png").write_bytes(png())
    (tmp_path / "a" / "note.txt").write_text("no picture")
    source = open_source(str(tmp_path / "a"))
    path = str((tmp_path / "a" / "b" / "x.png").resolve())
    assert (list(source.items), source.total) == ([Item(path, path)], 1)
    assert source.owns(path, "elsewhere")
    assert not source.owns(str(tmp_path / "ab" / "x.png"), "elsewhere")


def test_a_list_has_paths_and_urls(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# mine\nx.png\n\nhttps://example.org/y.jpg\n/z.png\n")
    wanted = [str(tmp_path / "x.png"), "https://example.org/y.jpg", "/z.png"]
    assert [item.place for item in items(tmp_path / "list.txt")] == wanted
    assert items(tmp_path / "list.txt", below=tmp_path / "p")[0].id == str(tmp_path / "p" / "x.png")


def test_a_tables_other_columns_are_metadata(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("title,image_url\nA cat,https://example.org/a.jpg\n")
    assert items(tmp_path / "t.csv") == [
        Item("https://example.org/a.jpg", "https://example.org/a.jpg", {"title": "A cat"})
    ]
    (tmp_path / "t.tsv").write_text("where\twhat\nx.png\ta dog\n")
    assert items(tmp_path / "t.tsv", column="where")[0].metadata == {"what": "a dog"}
    with pytest.raises(BadInput, match=r"record 1: expected one of the columns path, file, .*, got where, what"):
        items(tmp_path / "t.tsv")


def test_a_heading_may_have_a_name_twice_or_none(tmp_path: Path) -> None:
    """As tables of pandas begin, with their index."""
    (tmp_path / "t.csv").write_text(",image,caption,caption,caption,caption_2\n0,x.png,a,b,c,d\n")
    wanted = {"column 1": 0, "caption": "a", "caption_3": "b", "caption_4": "c", "caption_2": "d"}
    assert items(tmp_path / "t.csv")[0].metadata == wanted


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_record_without_a_picture_is_its_own(tmp_path: Path, suffix: str) -> None:
    records = [{"n": 1}, {"image": "a.png", "n": 2}, {"image": None}, "words"]
    text = json.dumps(records) if suffix == "json" else "\n".join(map(json.dumps, records))
    (tmp_path / f"t.{suffix}").write_text(text)
    found = items(tmp_path / f"t.{suffix}")
    assert [bool(item.problem) for item in found] == [True, False, True, True]
    assert found[1].metadata == {"n": 2}


def test_a_clip_of_a_record_that_says_it_has_no_picture(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "<video>"}, {"from": "gpt", "value": "A car."}]
    (tmp_path / "t.json").write_text(json.dumps([{"image": None, "video": "a.mp4", "conversations": said}]))
    (item,) = items(tmp_path / "t.json")
    assert (item.id, item.metadata) == (str(tmp_path / "a.mp4"), {"text": "A car."})


def test_no_picture_of_a_sample_takes_anothers_place(tmp_path: Path) -> None:
    """Archives may have a name several times."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, colour in [("1.png", "red"), ("1.png", "lime"), ("1.png", "blue"), ("1.bmp", "white")]:
            member = tarfile.TarInfo(name)
            member.size = len(png(colour))
            archive.addfile(member, io.BytesIO(png(colour)))
    found = items(tmp_path / "a.tar")
    assert len({item.id for item in found}) == len({item.place for item in found}) == 4


def test_parquet_may_hold_the_pictures(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = {"image": [{"bytes": png(), "path": None}], "n": [3], "tags": [["a", "b"]], "nested": [{"a": 1}]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "t.parquet")
    (item,) = items(tmp_path / "t.parquet")
    assert (item.place, item.metadata) == (png(), {"n": 3, "tags": ["a", "b"], "nested": {"a": 1}})
    assert item.id == f"{tmp_path / 't.parquet'}#1"


def test_parquet_may_hold_paths_in_the_place_of_pictures(tmp_path: Path) -> None:
    """The hub's pictures that were saved without their bytes."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    column = pyarrow.array([{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b.png"}], kind)
    parquet.write_table(pyarrow.table({"image": column, "n": [1, 2]}), tmp_path / "t.parquet")
    found = items(tmp_path / "t.parquet")
    assert [item.place for item in found] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert items(tmp_path / "t.parquet", in_place=True) == found


def test_cocos_captions_are_its_text(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a.jpg", "width": 5}, {"id": 8, "file_name": "b.jpg"}]
    notes = [{"image_id": 7, "caption": "one"}, {"image_id": 8, "caption": "x"}, {"image_id": 7, "caption": "two"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": notes}))
    first, second = items(tmp_path / "coco.json", below=tmp_path / "val")
    assert first.id == str(tmp_path / "val" / "a.jpg")
    assert first.metadata == {"id": 7, "width": 5, "text": "one\ntwo"}
    assert second.metadata == {"id": 8, "text": "x"}
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(BadInput, match="expected COCO's JSON"):
        items(tmp_path / "other.json")


def test_shards_are_read_without_unpacking(tmp_path: Path) -> None:
    for number in range(2):
        with tarfile.open(tmp_path / f"shard-{number}.tar", "w") as archive:
            for name, content in [
                (f"../{number}.png", png()), (f"../{number}.txt", b"a red one"), (f"../{number}.json", b'{"n": 1}')
            ]:  # fmt: skip
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    found = items(tmp_path / "shard-*.tar")
    assert [item.id for item in found] == [f"{tmp_path}/shard-{n}.tar#../{n}" for n in range(2)]
    assert found[0].metadata == {"n": 1, "text": "a red one"}
    media = read(found[0], stamp_of(found[0]), {}).media
    assert media is not None
    assert media.frames[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_broken_shard_is_its_own(tmp_path: Path) -> None:
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name in ("a.png", "b.png"):
                member = tarfile.TarInfo(name)
                member.size = len(png())
                archive.addfile(member, io.BytesIO(png()))
    content = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(content[:1560])  # within the second picture
    found = items(tmp_path / "*.tar")
    names = [item.id.rpartition("/")[2] for item in found if not item.problem]
    assert names == ["0.tar#a", "0.tar#b", "1.tar#a", "2.tar#a", "2.tar#b"]
    (broken,) = [item for item in found if item.problem]
    assert broken.problem.startswith(f"{tmp_path / '1.tar'}: not a whole tar file")
    with pytest.raises(BadInput, match="not a whole tar file"):
        items(tmp_path / "1.tar")
    for size, samples, count in [(1024, 1, 1), (1100, 1, 1), (2048, 2, 1), (2560, 2, 0), (len(content), 2, 0)]:
        (tmp_path / "1.tar").write_bytes(content[:size])  # the library takes this for a whole one
        source = open_source(str(tmp_path / "1.tar"))
        assert [item.problem for item in source.items] == [""] * samples
        assert len(source.notes) == count


def test_what_is_no_collection_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.docx").touch()
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in [("x.docx", "one of .docx"), ("none", "nothing there"), ("bad.txt", "in UTF-8")]:
        with pytest.raises(BadInput, match=message) as error:
            items(tmp_path / name)
        assert "\n" not in str(error.value)


def test_urls_are_fetched_from_public_addresses_and_only_online() -> None:
    item = Item("http://127.0.0.1/x.png", "http://127.0.0.1/x.png")
    problem = read(item, "url", {}).problem
    assert problem is not None
    assert "127.0.0.1" in problem
    assert "network is off" in str(read(item, "url", {}, offline=True).problem)
