"""Forms with files, read within bounds."""

from __future__ import annotations

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from vlm.server.http.errors import ApiError

MultiPartParser.spool_max_size = 2**16  # larger files of forms lie on the disk, not in memory


def kind_of_body(request: Request) -> str:
    """Its content type, without what stands behind it."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, files: int, fields: int) -> FormData:
    """Of at most so many. Raises `ApiError` 415 for another charset: some of Python's codecs take a minute, some raise
    what they like."""
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        raise ApiError(415, "unsupported", "expected a form in UTF-8")
    return await request.form(max_files=files, max_fields=fields)
