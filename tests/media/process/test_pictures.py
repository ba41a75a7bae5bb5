"""Pictures of strangers, decoded without a server: whatever one does, the next one is decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from vlm.errors import BadInput
from vlm.media.process import supervisor
from vlm.media.process.pictures import PictureDecoder


@pytest.fixture
def decoder() -> Iterator[PictureDecoder]:
    made = PictureDecoder(pixels=10_000, seconds=5)
    yield made
    made.close()


def broken(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Processes that start from now on run `statement` first; `images.load_image` is what decodes."""
    patched = f"from vlm.media import images; {statement}; main()"
    monkeypatch.setattr(supervisor, "_START", supervisor._START.replace("main()", patched))


def encoded(grey: int, size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


def test_threads_get_their_own_pictures(decoder: PictureDecoder) -> None:
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(decoder.decode, [encoded(grey) for grey in range(60)]))
    assert all(picture.shape == (6, 8, 3) and (picture == grey).all() for grey, picture in enumerate(found))
    assert decoder.deaths == 0


def test_the_limit_of_pixels_is_the_decoder_s_own(decoder: PictureDecoder) -> None:
    with pytest.raises(BadInput, match="pixels"):
        decoder.decode(encoded(0, (101, 100)))
    assert decoder.decode(encoded(9, (100, 100))).shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("statement", "said", "deaths"),
    [
        ("import os; images.load_image = lambda _, **__: os.abort()", "ended its decoder", 1),
        ("import time; images.load_image = lambda _, **__: time.sleep(600)", r"took longer than 0\.5 s", 1),
        ("import numpy; images.load_image = lambda _, **__: numpy.zeros(2**33, numpy.uint8)", "fits into memory", 0),
        ("images.load_image = lambda _, **__: None.nothing", "decodes, got AttributeError", 0),
    ],
    ids=["crashes", "hangs", "fills memory", "raises"],
)
def test_what_breaks_a_decoder_is_the_picture_s_fault(
    monkeypatch: pytest.MonkeyPatch, statement: str, said: str, deaths: int
) -> None:
    decoder = PictureDecoder(pixels=10_000, seconds=0.5)
    with monkeypatch.context() as patch:
        broken(patch, statement)
        with pytest.raises(BadInput, match=said):
            decoder.decode(encoded(0))
    assert decoder.deaths == deaths
    decoder.close()  # a process that lives on is broken still
    assert np.unique(decoder.decode(encoded(7))).tolist() == [7]
    decoder.close()
