"""What a caller names - a path, a URL, base64, an upload - as bytes or a file of ours, within the limits."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from starlette.datastructures import UploadFile

from vlm.errors import BadInput
from vlm.media.kinds import HEAD_BYTES, kind_of, kind_of_name, names_video, suffixes
from vlm.media.urls import fetch_url
from vlm.server.http.errors import ApiError
from vlm.server.http.settings import ServerSettings

VIDEO_TYPES = {
    "video/mp4": ".mp4", "video/webm": ".webm", "video/quicktime": ".mov", "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi", "video/mpeg": ".mpg", "video/ogg": ".ogv",
}  # fmt: skip
DATA_URL = re.compile(r"data:([\w.+/-]*)(?:;[\w.+=-]+)*?;base64,", re.ASCII)
CHUNK = 2**20
FETCHES = 8
"""URLs fetched at once, in threads of their own: slow strangers hold up nothing else."""


@dataclass(frozen=True)
class PictureBytes:
    content: bytes
    name: str = ""
    """As the caller calls it: a path below a folder of the server, a URL, an upload's file name."""
    ours: bool = True
    """Whether it came here; else it is a file's that stays where it is."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class ClipFile:
    path: Path
    sha256: str
    name: str = ""
    ours: bool = True
    """Whether the file is a copy that is kept with the item or removed; else it stays where it is."""

    def discard(self) -> None:
        if self.ours:
            self.path.unlink(missing_ok=True)


Source = PictureBytes | ClipFile


class Sources:
    """Opens them. Blocking work is done in threads."""

    def __init__(self, settings: ServerSettings, temporary: Path) -> None:
        self._roots = [root.resolve() for root in settings.media]
        self._limits, self._urls, self._temporary = settings.limits, settings.urls, temporary
        self._fetching = ThreadPoolExecutor(FETCHES, "fetch")

    def close(self) -> None:
        self._fetching.shutdown()

    def find(self, name: str) -> Path:
        """As `found_below` the server's folders."""
        return found_below(self._roots, name)

    async def path(self, name: str, root: Path | None = None) -> Source:
        """`root`, which is resolved, in place of the server's folders."""
        return await asyncio.to_thread(self._path, name, root)

    async def url(self, url: str, *, video: bool = False) -> Source:
        """`video` lets it be as large as a clip may."""
        if not self._urls:
            raise ApiError(403, "url_refused", "this server fetches no URLs")
        if "\0" in url or len(url) > 4096:
            raise ApiError(400, "bad_input", "url: expected at most 4096 characters and no NUL among them")
        most = self._limits.video_bytes if video else self._limits.image_bytes
        try:
            fetch = partial(fetch_url, url, max_bytes=most, timeout=self._limits.fetch_seconds)
            content = await asyncio.get_running_loop().run_in_executor(self._fetching, fetch)
        except BadInput as error:
            # Which private address a name has, and what it answers, is nobody's business.
            private = "expected a public address" in str(error)
            message = f"{url[:200]}: expected a public address" if private else str(error)
            raise ApiError(400, "url_refused", message) from None
        except (ValueError, OSError):
            raise ApiError(400, "bad_input", "url: expected an http:// or https:// URL") from None
        name = urlsplit(url).path
        return self._sorted(content, Path(name).suffix if names_video(name) else ".mp4" if video else None, url)

    def base64(self, text: str, *, video: bool) -> Source:
        """Raises `ApiError` for what is none, or too large."""
        match = DATA_URL.match(text[:200])
        mime = match.group(1).lower() if match else ""
        try:
            content = base64.b64decode(text[match.end() if match else 0 :], validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, "bad_input", "expected base64, got something else") from None
        return self._sorted(content, VIDEO_TYPES.get(mime, ".mp4") if video else None, "")

    async def upload(self, file: UploadFile) -> Source:
        name = (file.filename or "").replace("\\", "/").rpartition("/")[2][:255]
        suffix = Path(name).suffix.lower() if names_video(name) else VIDEO_TYPES.get((file.content_type or "").lower())
        if suffix is None:
            content = await file.read(self._limits.image_bytes + 1)
            return self._sorted(content, None, name)
        return await asyncio.to_thread(self._copied, file, suffix, name)

    def _path(self, name: str, root: Path | None) -> Source:
        path = self.find(name) if root is None else found_below([root], name)
        root = root or next(root for root in self._roots if path.is_relative_to(root))
        relative = str(path.relative_to(root))
        try:
            with open(_opened(root, relative), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ApiError(400, "bad_input", "path: expected a file")
                head = file.read(HEAD_BYTES)  # of the file that is open: a pipe is not waited for
                file.seek(0)
                kind = kind_of(head, relative) or kind_of_name(relative)
                clip = kind is not None and kind.medium == "video"
                most = self._limits.video_bytes if clip else self._limits.image_bytes
                if status.st_size > most:
                    raise _too_large(most)
                if clip:
                    digest = hashlib.sha256()
                    while chunk := file.read(CHUNK):
                        digest.update(chunk)
                    return ClipFile(path, digest.hexdigest(), relative, ours=False)
                found = self._sorted(file.read(most + 1), None, relative)
                assert isinstance(found, PictureBytes)
                return replace(found, ours=False)
        except OSError:
            raise ApiError(404, "path_not_found", "no such file") from None

    def _sorted(self, content: bytes, suffix: str | None, name: str) -> Source:
        """`suffix` is a clip's."""
        most = self._limits.image_bytes if suffix is None else self._limits.video_bytes
        if len(content) > most:
            raise _too_large(most)
        if not content:
            raise ApiError(400, "bad_input", "expected a picture or clip, got nothing")
        if suffix is None:
            return PictureBytes(content, name)
        with self._new(suffix) as path:
            path.write_bytes(content)
        return ClipFile(path, hashlib.sha256(content).hexdigest(), name)

    def _copied(self, file: UploadFile, suffix: str, name: str) -> ClipFile:
        digest, size = hashlib.sha256(), 0
        with self._new(suffix) as path, path.open("wb") as copy:
            while chunk := file.file.read(CHUNK):
                size += len(chunk)
                if size > self._limits.video_bytes:
                    raise _too_large(self._limits.video_bytes)
                digest.update(chunk)
                copy.write(chunk)
        return ClipFile(path, digest.hexdigest(), name)

    @contextmanager
    def _new(self, suffix: str) -> Iterator[Path]:
        """A path to write to; what is half written does not stay."""
        assert suffix.lower() in suffixes("video")
        path = self._temporary / (uuid.uuid4().hex + suffix.lower())
        try:
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _opened(root: Path, relative: str) -> int:
    """A descriptor of the file. The resolved path has no links; one that is put there meanwhile is not followed."""
    only = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if os.open not in os.supports_dir_fd:
        return os.open(root / relative, only)
    at = os.open(root, os.O_RDONLY)
    for part in Path(relative).parts:
        above, at = at, -1
        try:
            at = os.open(part, only, dir_fd=above)
        finally:
            os.close(above)
    return at


def _too_large(most: int) -> ApiError:
    return ApiError(413, "too_large", f"expected a file of at most {most} bytes")


def found_below(roots: Sequence[Path], name: str) -> Path:
    """The file behind a path below one of `roots`, which are resolved. Raises `ApiError` 403 for what lies outside, 404
    for what is not there; it is the same answer whether or not something lies outside."""
    outside = ApiError(403, "path_refused", "expected a path below one of the server's folders")
    if not roots:
        raise ApiError(403, "path_refused", "this server takes no paths")
    if "\0" in name or not name or len(name) > 4096 or ".." in PurePosixPath(name).parts:
        raise outside
    inside = False
    for root in roots:
        try:
            path = (root / name).resolve(strict=False)  # an absolute name replaces the root
            if not path.is_relative_to(root):
                continue
            inside = True
            if path.exists():
                return path
        except (OSError, ValueError, RuntimeError):  # a loop of links, a name too long
            continue
    if not inside:
        raise outside
    raise ApiError(404, "path_not_found", "no such file")
