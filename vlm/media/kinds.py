"""What a file is: its content says, not its name. One table for folders, lists, archives, search and captions."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from vlm.files import LFS_POINTER

Medium: TypeAlias = Literal["image", "video"]

HEAD_BYTES = 512
"""Of a file's beginning: enough to tell every kind of the table."""

_Test: TypeAlias = Callable[[bytes], bool]


@dataclass(frozen=True)
class Kind:
    """A kind of file. `pillow` is the name of what reads a picture; a kind that nothing here reads has none."""

    name: str
    medium: Medium | None
    suffixes: tuple[str, ...] = ()
    test: _Test | None = None
    """Of the first bytes; kinds without one are known by their suffix alone."""
    pillow: str = ""

    @property
    def readable(self) -> bool:
        return self.medium == "video" or bool(self.pillow)


def _at(offset: int, *signatures: bytes) -> _Test:
    return lambda head: any(head[offset : offset + len(one)] == one for one in signatures)


def _riff(form: bytes) -> _Test:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == form


def _brand(*brands: bytes) -> _Test:
    """The major brand of an ISO media file, or where that is of a family (`mif1`) one that it is compatible with."""

    def test(head: bytes) -> bool:
        if head[4:8] != b"ftyp":
            return False
        if head[8:12] not in (b"mif1", b"msf1"):
            return head[8:12] in brands
        size = min(int.from_bytes(head[:4], "big"), len(head))
        return any(head[at : at + 4] in brands for at in range(16, size - 3, 4))

    return test


def _transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes, each behind a time stamp of 4 where it is a camera's (M2TS)."""
    return any(head[at : at + 2 * step + 1 : step] == b"\x47" * 3 for at, step in ((0, 188), (4, 192)))


def _bitmap(head: bytes) -> bool:
    """Two letters that many a text begins with, and the size of one of the headers there are."""
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)


def _sound(head: bytes) -> bool:
    """Ogg may hold either: the first pages name what theirs is."""
    ogg = head[:4] == b"OggS" and not any(name in head for name in (b"theora", b"OVP80", b"BBCD"))
    return ogg or _riff(b"WAVE")(head) or _at(0, b"ID3", b"fLaC")(head) or _brand(b"M4A ", b"M4B ")(head)


def _markup(*names: bytes) -> _Test:
    return lambda head: any(name in head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower() for name in names)


_PPM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s")
_TIFF = _at(0, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# In the order of asking: what is narrower comes first.
# fmt: off
KINDS = (
    Kind("a git-lfs pointer (run `git lfs pull`)", None, (), _at(0, LFS_POINTER)),
    Kind("JPEG", "image", (".jpg", ".jpeg", ".jpe", ".jfif"), _at(0, b"\xff\xd8\xff"), "JPEG"),
    Kind("PNG", "image", (".png", ".apng"), _at(0, b"\x89PNG\r\n\x1a\n"), "PNG"),
    Kind("WebP", "image", (".webp",), _riff(b"WEBP"), "WEBP"),
    Kind("GIF", "image", (".gif",), _at(0, b"GIF87a", b"GIF89a"), "GIF"),
    Kind("Canon raw (CR2)", "image", (".cr2",), lambda head: _TIFF(head) and head[8:10] == b"CR"),
    Kind("Panasonic raw (RW2)", "image", (".rw2",), _at(0, b"IIU\0")),
    Kind("Olympus raw (ORF)", "image", (".orf",), _at(0, b"IIRO", b"IIRS", b"MMOR")),
    Kind("Fujifilm raw (RAF)", "image", (".raf",), _at(0, b"FUJIFILMCCD-RAW")),
    # These begin as a TIFF does, and hold a small preview that must not be taken for the picture.
    Kind("camera raw", "image", (".nef", ".arw", ".dng", ".pef", ".srw", ".nrw", ".sr2")),
    Kind("TIFF", "image", (".tif", ".tiff"), _TIFF, "TIFF"),
    Kind("BMP", "image", (".bmp", ".dib"), _bitmap, "BMP"),
    Kind("AVIF", "image", (".avif",), _brand(b"avif", b"avis"), "AVIF"),
    Kind("HEIC", "image", (".heic", ".heif", ".hif"),
         _brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"),
    Kind("Canon raw (CR3)", "image", (".cr3",), _brand(b"crx ")),
    Kind("JPEG 2000", "image", (".jp2", ".j2k", ".jpx"),
         _at(0, b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), "JPEG2000"),
    Kind("PPM", "image", (".ppm", ".pgm", ".pbm", ".pnm"),
         lambda head: _PPM.match(head) is not None, "PPM"),
    Kind("ICO", "image", (".ico",), _at(0, b"\0\0\1\0"), "ICO"),
    Kind("TGA", "image", (".tga",), None, "TGA"),
    Kind("JPEG XL", "image", (".jxl",), _at(0, b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    Kind("Photoshop (PSD)", "image", (".psd",), _at(0, b"8BPS")),
    Kind("OpenEXR", "image", (".exr",), _at(0, b"\x76\x2f\x31\x01")),
    Kind("Radiance HDR", "image", (".hdr",), _at(0, b"#?RADIANCE", b"#?RGBE")),
    Kind("PDF", None, (".pdf",), _at(0, b"%PDF")),
    Kind("PostScript", None, (".eps", ".ps"), _at(0, b"%!PS")),
    Kind("HTML", None, (".html", ".htm"), _markup(b"<!doctype html", b"<html")),
    Kind("SVG", "image", (".svg",), _markup(b"<svg")),
    Kind("sound", None, (".wav", ".mp3", ".flac", ".m4a", ".m4b", ".aac", ".opus", ".ogg", ".oga", ".wma"), _sound),
    Kind("MP4", "video", (".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".qt"),
         _at(4, b"ftyp", b"moov", b"mdat", b"wide")),
    Kind("Matroska or WebM", "video", (".mkv", ".webm"), _at(0, b"\x1aE\xdf\xa3")),
    Kind("AVI", "video", (".avi", ".divx"), _riff(b"AVI ")),
    Kind("ASF", "video", (".wmv", ".asf"), _at(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")),
    Kind("FLV", "video", (".flv",), _at(0, b"FLV\1")),
    Kind("Ogg", "video", (".ogv",), _at(0, b"OggS")),
    Kind("MPEG", "video", (".mpg", ".mpeg", ".vob", ".m2v", ".mpe"), _at(0, b"\0\0\1\xba", b"\0\0\1\xb3")),
    Kind("MPEG transport stream", "video", (".ts", ".mts", ".m2ts", ".m2t"), _transport_stream),
    Kind("ZIP", None, (".zip",), _at(0, b"PK\3\4")),
    Kind("gzip", None, (".gz",), _at(0, b"\x1f\x8b")),
    Kind("NumPy array", None, (".npy",), _at(0, b"\x93NUMPY")),
)
# fmt: on
_BY_SUFFIX = {suffix: kind for kind in KINDS for suffix in kind.suffixes}

FORMATS = tuple(kind.name for kind in KINDS if kind.pillow)
"""The pictures that are read, as messages name them."""


def kind_of(head: bytes, name: str = "") -> Kind | None:
    """What the first `HEAD_BYTES` bytes of a file say that it is, and where they say nothing what its suffix says.

    Of camera files that only their suffix tells from a TIFF, it is the suffix.
    """
    said = _BY_SUFFIX.get(Path(name).suffix.lower())
    found = next((kind for kind in KINDS if kind.test is not None and kind.test(head)), None)
    if found is not None and found.name == "TIFF" and said is not None and said.name == "camera raw":
        return said
    if found is None and said is not None and said.test is None:
        return said
    return found


def kind_of_file(path: str | Path) -> Kind | None:
    """`kind_of` a file that is there; nothing where it cannot be read or is none: a pipe would be waited for."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return kind_of(file.read(HEAD_BYTES), str(path))
    except (OSError, ValueError):
        return None


def kind_of_name(name: str | Path) -> Kind | None:
    """What a suffix says, of names without content."""
    return _BY_SUFFIX.get(Path(name).suffix.lower())


def names_video(name: str | Path) -> bool:
    """Whether the suffix is a video's: of names that come without their file, from strangers too."""
    kind = kind_of_name(name)
    return kind is not None and kind.medium == "video"


def medium_of(path: str | Path) -> Medium | None:
    """A picture or a video, by the content of a file that is there, and else by its suffix; nothing for neither."""
    kind = kind_of_file(path) or kind_of_name(path)
    return None if kind is None else kind.medium


def is_image(path: str | Path) -> bool:
    """Whether the file is a picture by its content; a name without a file by its suffix."""
    return medium_of(path) == "image"


def is_video(path: str | Path) -> bool:
    """Whether the file is a video by its content; a name without a file by its suffix."""
    return medium_of(path) == "video"


def described(head: bytes, name: str = "") -> str:
    """What a file that is no picture or clip is, for a message."""
    kind = kind_of(head, name)
    if kind is not None:
        known = f"{kind.name}, which is not read" if kind.medium == "image" and not kind.readable else kind.name
        return known if known.startswith("a ") else f"a file of the format {known}"
    if not head:
        return "nothing"
    return f"a file that begins with {head[:16]!r}"


@cache
def suffixes(medium: Medium) -> frozenset[str]:
    """Those of the table."""
    return frozenset(suffix for kind in KINDS if kind.medium == medium for suffix in kind.suffixes)
