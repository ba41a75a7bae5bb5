"""What goes wrong, as `{"error": {"code", "message"}}`, whoever noticed it."""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from vlm.errors import BadInput, VlmError

log = logging.getLogger("vlm.server")

CODES = {
    400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 422: "invalid",
    500: "internal", 503: "unavailable",
}  # fmt: skip


class ApiError(HTTPException):
    """An answer other than the one asked for. An `HTTPException`, because a body's parser lets nothing else through."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.message = code, message

    def body(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


def busy(message: str, seconds: float = 1.0) -> ApiError:
    return ApiError(429, "busy", message, {"Retry-After": str(max(1, round(seconds)))})


def storage() -> ApiError:
    """The disk is full, or cannot be written."""
    return ApiError(503, "storage", "the server's disk is full or cannot be written; nothing was changed")


def of_input(error: BadInput) -> ApiError:
    """What somebody gave cannot be used."""
    return ApiError(400, "bad_input", str(error))


def response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    line = " ".join(message.split())[:1000]
    text = json.dumps({"error": {"code": code, "message": line}})  # ASCII: whatever a caller's text holds
    return Response(text, status, dict(headers or {}), "application/json")


async def answer(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """`error` as the whole answer of an ASGI application."""
    await response(error.status_code, error.code, error.message, error.headers)(scope, receive, send)


def install(app: FastAPI) -> None:
    """Every error of the framework and of our own takes this form."""

    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error, ApiError):
            return response(error.status_code, error.code, error.message, error.headers)
        phrase = http.HTTPStatus(error.status_code).phrase
        code = CODES.get(error.status_code, phrase.lower().replace(" ", "_"))
        return response(error.status_code, code, str(error.detail or phrase), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(422, "invalid", told(error.errors()))

    async def refused(request: Request, error: Exception) -> Response:
        return await known(request, of_input(error)) if isinstance(error, BadInput) else await failed(request, error)

    async def full(request: Request, error: Exception) -> Response:
        log.error("%s %s: %s", request.method, request.url.path, error)
        return await known(request, storage())

    async def failed(request: Request, error: Exception) -> Response:
        # The framework raises it again for uvicorn, which logs it and ends the connection.
        return response(500, "internal", "the server failed; its log says why", {"Connection": "close"})

    app.add_exception_handler(HTTPException, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(VlmError, refused)
    app.add_exception_handler(OSError, full)
    app.add_exception_handler(Exception, failed)


def told(errors: Any) -> str:
    """pydantic's first finding in one line; never the value, which may be large."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "one", "many", "words")) or "body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where[:200]}: {first['msg'].removeprefix('Value error, ')}{more}"


__all__ = ["ApiError", "JSONResponse", "answer", "busy", "install", "of_input", "response", "storage", "told"]
