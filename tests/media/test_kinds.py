"""What a file is, its content says: for folders, lists, archives, search and captions alike."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm.errors import BadInput
from vlm.media.folders import find_media
from vlm.media.images import load_image
from vlm.media.kinds import described, is_image, is_video, kind_of, names_video
from vlm.media.open import open_media

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
# 48 x 32: red grows to the right, green downwards, blue to the left; turned by a quarter, as a phone held upright does.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAOgAAgAAAAAC1AABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNg"
    "AAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZE"
    "AcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAAIAAAAAH////wAAAAAv///+AA"
    "AAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAA"
    "ARRtZGF0AAAA5CgBrwT44wvYZWIJ4LcCLcBiILVgM9CRXLxaG8bFCfwH3sdp9GDn+fWyb/5lb6zuDg1XL+A/dW491nBy5kyw3Znx5wxsXrdg"
    "Ecy27XRFga5ZC+VzW+YceqaxXaUUJFCGug/QnrtjBYuxYgKjWqfUMpER1WSrK6gDuxHtOml5+dekpphlXVyIjvJ3LF+LLvyd9PONmTQ3Fle5"
    "+n8/43w6cFFG7awq5pPUnb6txxhx3275viwlsCFVxnZIgAogGdC+odVMYzfJGthYhMWXkRM9g7BBCmCKpGXcDqwvDk1t3UV44DZSOAAAAAZF"
    "eGlmAABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)


def gradient() -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    gradient().save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg", "photo", "photo.mp4"])
def test_a_phones_picture_is_upright_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HEIC)
    image = load_image(tmp_path / name)
    upright = gradient().transpose(Image.Transpose.ROTATE_270)
    assert image.size == (32, 48)
    assert np.abs(np.asarray(image, float) - np.asarray(upright, float)).mean() < 4
    assert is_image(tmp_path / name)
    assert not is_video(tmp_path / name)


@pytest.mark.parametrize(("kind", "suffix", "most"), [("AVIF", "avif", 8), ("TGA", "tga", 0), ("ICO", "ico", 0)])
def test_formats_of_the_table(tmp_path: Path, kind: str, suffix: str, most: float) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(kind))
    assert is_image(path)
    image = load_image(path)
    assert image.mode == "RGB"
    if kind != "ICO":  # has sizes of its own
        assert np.abs(np.asarray(image, float) - np.asarray(gradient(), float)).mean() <= most


def test_a_video_is_one_whatever_it_is_called(tmp_path: Path) -> None:
    content = (SAMPLES / "city_at_night.mp4").read_bytes()
    for name in ("clip", "clip.jpg", "clip.vob"):
        (tmp_path / name).write_bytes(content)
        assert is_video(tmp_path / name)
        assert len(open_media(tmp_path / name).frames) == 4


@pytest.mark.parametrize(
    ("head", "name", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "a.jpg", "a git-lfs pointer"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(90), "a.jpg", "Canon raw (CR2), which is not read"),
        (b"II*\0\x10\0\0\0" + bytes(90), "a.nef", "camera raw, which is not read"),
        (b"\xff\x0a" + bytes(90), "a.jpg", "JPEG XL, which is not read"),
        (b"8BPS" + bytes(90), "a.png", "Photoshop (PSD), which is not read"),
        (b"%PDF-1.7", "a.png", "PDF"),
        (b"<!DOCTYPE html><html>", "a.png", "HTML"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(90), "a.png", "broken|damaged|video"),
        (b"hello", "a.png", "a file that begins with b'hello'"),
        (b"BMW makes cars, and this is a text", "a", "a file that begins with"),
        (b"P5 is no picture", "a", "a file that begins with"),
    ],
)
def test_messages_name_what_is_there(tmp_path: Path, head: bytes, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(BadInput) as error:
        open_media(tmp_path / name)
    message = str(error.value)
    assert "\n" not in message
    assert any(one in message for one in words.split("|")), message


def test_names_of_strangers_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.mp4").write_bytes(encoded("PNG"))
    assert names_video("x.mp4")
    assert not is_video("x.mp4")


def test_the_narrower_kind_wins() -> None:
    for head, name in [
        (b"\0\0\0\x18ftypavif" + bytes(12), "AVIF"), (b"\0\0\0\x18ftypmif1\0\0\0\0heicmif1", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1", "AVIF"), (b"\0\0\0\x18ftypqt  " + bytes(12), "MP4"),
        (b"\0\0\0\x18ftypcrx " + bytes(12), "Canon raw (CR3)"), (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"), (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
        (b"\0\0\0\x18ftypM4A " + bytes(12), "sound"), (b"OggS" + bytes(24) + b"\1vorbis", "sound"),
        (b"OggS" + bytes(24) + b"\x80theora", "Ogg"),
        ((b"\x47" + bytes(187)) * 3, "MPEG transport stream"),
        ((bytes(4) + b"\x47" + bytes(187)) * 3, "MPEG transport stream"),
    ]:  # fmt: skip
        found = kind_of(head)
        assert found is not None, name
        assert found.name == name
    assert described(b"") == "nothing"


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(encoded("PNG"))
    (tmp_path / "z").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    found = find_media(tmp_path)
    assert found.paths == [tmp_path / "a" / "x.png"]
    assert [note["count"] for note in found.notes.as_json()] == [2]
    assert find_media(tmp_path / "b").paths == [tmp_path / "b" / "x.png"]


def test_bytes_are_a_clip_where_they_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = SAMPLES / "city_at_night.mp4"
    of_file, of_bytes = open_media(path), open_media(path.read_bytes(), name="a clip of mine")
    assert (of_bytes.source, of_bytes.times) == ("a clip of mine", of_file.times)
    for ours, theirs in zip(of_bytes.frames, of_file.frames, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    monkeypatch.setattr("vlm.media.open.fetch_url", lambda url: path.read_bytes())
    assert open_media("https://example.org/clip").times == of_file.times
    with pytest.raises(BadInput, match=r"^half a clip: expected"):
        open_media(path.read_bytes()[:5000], name="half a clip")
