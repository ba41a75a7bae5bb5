"""Pictures and clips on which tools of this kind fail, as people reported them; the others are in tests/cli."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from vlm.media.images import load_image
from vlm.media.open import open_media
from vlm.media.video.reader import open_video

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def pixels(source: Any) -> np.ndarray:
    return np.asarray(source, float)


def test_01_profiles(cases: Path) -> None:
    for name in ("iccenc_pro.png", "iccenc_adobe.png"):
        path = cases / "01-icc-ignored" / name
        with Image.open(path) as raw:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(raw.info["icc_profile"]))
            truth = ImageCms.profileToProfile(raw.convert("RGB"), profile, ImageCms.createProfile("sRGB"))
        assert np.abs(pixels(load_image(path)) - pixels(truth)).mean() < 1
        assert np.abs(pixels(load_image(path)) - pixels(load_image(SAMPLES / "cat.jpg"))).mean() < 2


def test_02_mirrors(cases: Path) -> None:
    found = {}
    for name in ("base", "hflip", "rot90hflip"):
        with open_video(cases / "02-video-mirror-matrix" / f"{name}.mp4") as reader:
            found[name] = pixels(reader.frames([5])[0])
    np.testing.assert_array_equal(found["hflip"], found["base"][:, ::-1])
    np.testing.assert_array_equal(found["rot90hflip"], np.rot90(found["base"][:, ::-1], 3))


def test_03_high_dynamic_range(cases: Path) -> None:
    media = open_media(cases / "03-video-hdr" / "hdr_pq.mp4")
    assert "tone-mapped" in media.notes[0]
    frame = pixels(media.frames[0])
    colours = [frame[120, 20 + 40 * number] for number in range(6)]
    chart = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    assert np.abs(np.array(colours) - np.array(chart)).max() < 40


def test_04_which_stream(cases: Path) -> None:
    path = cases / "04-video-which-stream" / "mjpegfirst.mkv"
    with open_video(path) as reader:
        assert reader.size == (320, 160)
        assert len(reader.times_N) == 2  # as many as ffmpeg decodes
    assert "stream 1" in open_media(path).notes[0]


def test_05_and_06_times(cases: Path) -> None:
    for path, frames in [("05-video-avi-b-frames/h264.avi", 50), ("06-ts-joined/cat2.ts", 100)]:
        with open_video(cases / path) as reader:
            np.testing.assert_allclose(np.diff(reader.times_N), 0.04, atol=1e-6)
            assert (len(reader.times_N), round(reader.duration, 6)) == (frames, frames * 0.04)


def test_07_and_08_depth(cases: Path) -> None:
    path = cases / "07-gray16-trns" / "g16trns.png"
    with Image.open(path) as raw:
        key, gray = raw.info["transparency"], np.asarray(raw)
    shown = pixels(load_image(path))[..., 0]
    assert (shown[gray == key] == 255).all()
    np.testing.assert_allclose(shown[gray != key], gray[gray != key] / 257, atol=1)
    notes: list[str] = []
    path = cases / "08-float-tiff" / "f65535.tif"
    with Image.open(path) as raw:
        gray = np.asarray(raw)
    np.testing.assert_allclose(pixels(load_image(path, notes=notes))[..., 0], gray / 257, atol=1)
    assert len(notes) == 1
