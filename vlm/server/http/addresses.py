"""Addresses: a part between two slashes names what is percent-encoded in it, and nothing else.

Clients and proxies take `.`, `..` and empty parts out of an address before they send it, so that it names something
else: no such part is taken here, and nothing that is stored is called so. The path stays encoded until a route has been
found, so that `%2F` inside a name is never taken for a slash between two.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

from vlm.server.http.errors import ApiError

API = "v1"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def address(*parts: str) -> str:
    """The path that these names lead along, each whole whatever is in it."""
    return "".join("/" + quote(part, safe="") for part in parts)


def moves(name: str) -> bool:
    """Whether a client could take a part of `name` for a step: `..` between slashes of either kind, or `.`."""
    return any(part in (".", "..") for part in re.split(r"[/\\]", name))


def canonical(scope: Scope) -> Scope:
    """The request with its path encoded in one way, where it is of the API: keys, signatures and routes see the same.

    Raises `ApiError` 404 for a part that is empty, `.` or `..`, that is no UTF-8, or that has control characters.
    """
    path: str = scope["path"]
    if not path.startswith(f"/{API}"):
        return scope
    raw: bytes = scope.get("raw_path") or quote(path).encode()
    return {**scope, "path": address(*(_decoded(part) for part in raw.split(b"/")[1:]))}


def _decoded(part: bytes) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise ApiError(404, "not_found", "expected an address of UTF-8") from None
    if text in ("", ".", "..") or CONTROL.search(text):
        expected = "expected an address without empty, `.` and `..` parts and control characters"
        raise ApiError(404, "not_found", f"{expected}; / inside a name is written %2F")
    return text


class _Part(Convertor[str]):
    """One part."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote_to_bytes(value).decode()

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


class _Parts(_Part):
    """All that are left; slashes between them may be written as they are."""

    regex = ".+"


register_url_convertor("part", _Part())
register_url_convertor("parts", _Parts())
