"""A report's pictures: each once, small, upright, and told where they are missing."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_page import page_of
from report_runs import picture, questions, searches, vqa, write_run

from vlm.evaluation.results import Sample


def test_a_picture_is_embedded_once(run: Path) -> None:
    page = page_of(run)
    assert len(page.pictures()) == 6
    assert len(set(page.pictures())) == 6
    assert {n for row in page.rows() for n in row["pictures"]} == set(range(6))


def test_the_same_pixels_under_two_names_are_embedded_once(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 4, 2)
    shutil.copy(tmp_path / "data/made/0.png", tmp_path / "data/made/1.png")
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    assert len(page.pictures()) == 1


def test_thumbnails_are_small_jpegs(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 2, 1)
    picture(tmp_path / "data/made/0.png", 5, (1600, 900))
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    (uri,) = page.pictures()
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 20_000


def test_pictures_turned_by_exif_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "data/made").mkdir(parents=True)
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "data/made/0.jpg", exif=exif)
    samples = [Sample(id="a", inputs={"image": "made/0.jpg"}, scores={"accuracy": 1.0})]
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    data = base64.b64decode(page.pictures()[0].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (40, 80)


def test_missing_and_broken_pictures_are_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "data/made/3.png").unlink()
    (tmp_path / "data/made/4.png").write_bytes(b"no picture")
    page = page_of(run)
    assert "2 pictures could not be shown, the first: made/" in page.text
    by_id = {row["id"]: row for row in page.rows()}
    assert by_id["q3"]["pictures"] == [None]
    assert by_id["q3"]["name"] == "3.png"
    assert len(page.pictures()) == 4
    assert str(tmp_path) not in page.text


def test_pictures_of_the_cache_are_found_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "cache/datasets/media/1.png", 1)
    names = ("cache:datasets/media/1.png", "cache:datasets/media/2.png")
    samples = [Sample(id=name, inputs={"image": name}, scores={"accuracy": 1.0}) for name in names]
    run = write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)])
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    page = page_of(run)
    assert [row["pictures"] for row in page.rows()] == [[0], [None]]
    assert "1 pictures could not be shown, the first: cache:datasets/media/2.png" in page.text
    assert str(tmp_path) not in page.text
    first = (run / "report.html").read_bytes()
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "elsewhere"))
    page_of(run)
    assert (run / "report.html").read_bytes() == first


def test_beyond_the_bound_pictures_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.evaluation.report.page.PICTURE_BYTES", 6_000)
    samples = questions(tmp_path / "data", 30, 30)
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    assert 0 < len(page.pictures()) < 10
    assert "Some pictures are left out" in page.text


def test_retrieval_shows_candidates_and_the_right_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", [searches(tmp_path / "data", 9)])
    page = page_of(run)
    rows = {(row["category"], row["id"]): row for row in page.rows()}
    first, third, missed = (rows["text_to_image", f"{i}#0"] for i in (0, 1, 2))
    assert [c.get("right", False) for c in first["candidates"]] == [True, False, False, False, False]
    assert [c.get("right", False) for c in third["candidates"]] == [False, False, True, False, False]
    assert all("picture" in c for c in first["candidates"])
    assert first["verdict"] == 2
    assert third["verdict"] == missed["verdict"] == 0
    assert missed["targets"][0]["text"] == "2.png"
    assert "pictures" not in first
    back = rows["image_to_text", "0"]
    assert len(back["pictures"]) == 1
    assert back["candidates"][0] == {"text": "picture number 0", "right": True, "score": 0.5}
    assert len(page.pictures()) == 9
    assert "Recall at k" in page.text


def test_candidates_named_by_a_clip_get_its_first_frame(tmp_path: Path) -> None:
    result, samples = searches(tmp_path / "data", 3)
    frames = {f"made/{i}.png": {"frames": [f"made/{i}.png", f"made/{(i + 1) % 3}.png"]} for i in range(3)}
    clips = [
        s.model_copy(update={
            "inputs": frames[s.cluster] if s.inputs else {},
            "cluster": f"clip{s.cluster[5]}",
            "output": [{**c, "item": f"clip{c['item'][5]}"} for c in s.output] if s.prompt else s.output,
            "references": (f"clip{s.cluster[5]}",) if s.prompt else s.references,
        })
        for s in samples
    ]  # fmt: skip
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(result, clips)]))
    rows = {row["id"]: row for row in page.rows()}
    assert all("picture" in c for c in rows["0#0"]["candidates"])
    assert {c["text"] for c in rows["0#0"]["candidates"]} == {"clip0", "clip1", "clip2"}
    assert rows["0"]["name"] == "clip0"
    assert len(rows["0"]["pictures"]) == 2


def test_a_video_shows_its_first_frame_or_its_name(tmp_path: Path) -> None:
    clip = Path(__file__).resolve().parents[2] / "data/samples/city_at_night.mp4"
    shutil.copy(clip, tmp_path / "night.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    samples = [
        Sample(id=name, inputs={"video": f"{name}.mp4"}, output="a city", prediction="a city", scores={"accuracy": 1.0})
        for name in ("night", "broken")
    ]
    page = page_of(write_run(tmp_path / "run", tmp_path, [(vqa("clips", samples), samples)]))
    night, broken = page.rows()
    assert night["pictures"] == [0]
    assert broken["pictures"] == [None]
    assert broken["name"] == "broken.mp4"
    assert "1 pictures could not be shown, the first: broken.mp4" in page.text
