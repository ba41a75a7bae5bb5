"""The report's pictures: small JPEGs inside the page, each once however many samples show it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from vlm.errors import BadInput
from vlm.evaluation.portable_paths import resolve_name
from vlm.media.images import load_image
from vlm.media.kinds import is_video
from vlm.media.video.reader import open_video

SIDE = 240
"""The longer side of a thumbnail, in pixels."""
QUALITY = 72


class Album:
    """Thumbnails by number; their data URIs together take at most about `most_bytes`."""

    def __init__(self, data: Path, most_bytes: int) -> None:
        self.data = data
        self.uris: list[str] = []
        self.unread: dict[str, str] = {}
        """What could not be read since the task began, and why."""
        self.full = False
        self._left, self._share = most_bytes, most_bytes
        self._numbers: dict[str, int | None] = {}
        self._known: dict[str, int] = {}

    def begin_task(self, tasks_left: int) -> None:
        """From here on an equal share of what is left counts."""
        self.unread, self.full, self._share = {}, False, self._left // tasks_left

    def add(self, name: str) -> int | None:
        """The number of the thumbnail of a file by its name in the run (`vlm.evaluation.portable_paths`).

        None where it cannot be read, which `unread` then tells, or where the task's share is used up (`full`).
        """
        if name in self._numbers:
            known = self._numbers[name]
            if known is None:
                self.unread.setdefault(name, "cannot be read")
            return known
        if self._share <= 0:
            self.full = True
            return None
        path = resolve_name(name, self.data)
        try:
            uri = _data_uri(_first_frame(path))
        except BadInput as error:
            # The page is the same on every machine: no path of this one in it.
            self.unread[name] = str(error).replace(str(path), name)
            self._numbers[name] = None
            return None
        number = self._known.get(uri)
        if number is None:
            number = self._known[uri] = len(self.uris)
            self.uris.append(uri)
            self._left -= len(uri)
            self._share -= len(uri)
        self._numbers[name] = number
        return number


def _first_frame(path: Path) -> Image.Image:
    if not is_video(path):
        return load_image(path)
    with open_video(path, "pyav") as reader:
        return reader.frames([0])[0]


def _data_uri(image: Image.Image) -> str:
    # `load_image` may hand out a picture that others hold; reduce a copy.
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
