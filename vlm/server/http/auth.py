"""Who may do what: bearer keys with a role, and without keys only this machine.

A keys file has a line a key, `read KEY` or `write KEY`; a key that may write may read too. The role is looked at before
anything of a request's body is.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm.errors import BadInput
from vlm.server.http.addresses import canonical
from vlm.server.http.browsers import PAGE, foreign
from vlm.server.http.errors import ApiError, answer
from vlm.server.http.remarks import remark
from vlm.server.http.signing import Signer

Role = Literal["read", "write"]
LEAST = 16
"""Characters of a key."""
CLIENT = "vlm.client"
"""In a request's scope: the fingerprint of its key; nothing where the server has none."""
OPEN = ("/healthz", "/readyz", "/openapi.json", "/", "/favicon.ico")
NOTHING = "default-src 'none'; sandbox"
OURS = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"
"""The page runs what this server gives it and fetches nothing from elsewhere."""
READING = re.compile(
    r"/v1/(embeddings|chat/completions|responses|decisions|systemone|collections/[^/]+/(search|items/scroll))|/caption|/vqa"
)
"""What is sent with POST and changes nothing."""


class Keys:
    """Keys by their hashes, so that looking one up takes as long whatever it begins with."""

    def __init__(self, roles: dict[str, Role]) -> None:
        self._roles = {hashlib.sha256(key.encode()).digest(): role for key, role in roles.items()}

    def role(self, key: str) -> Role | None:
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found: Role | None = None
        for digest, role in self._roles.items():
            if hmac.compare_digest(digest, given):
                found = role
        return found


def fingerprint(key: str) -> str:
    """What names a key in a log."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def read_keys(path: Path) -> Keys:
    """The keys of a file; `#` begins a comment. Raises `BadInput` naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected a file of keys, got one that cannot be read ({error})") from None
    roles: dict[str, Role] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in ("read", "write"):
            raise BadInput(f"{path}:{number}: expected `read KEY` or `write KEY`")
        if len(words[1]) < LEAST:
            raise BadInput(f"{path}:{number}: expected a key of at least {LEAST} characters, got {len(words[1])}")
        roles[words[1]] = "write" if words[0] == "write" else "read"
    if not roles:
        raise BadInput(f"{path}: expected at least one key, got none")
    return Keys(roles)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def needed(method: str, path: str) -> Role | None:
    """The role that a request takes; what is not known to only read takes `write`."""
    if path in OPEN:
        return None
    if method in ("GET", "HEAD", "OPTIONS") or (method == "POST" and READING.fullmatch(path)):
        return "read"
    return "write"


class Guarded:
    """Lets a request through if its key allows it.

    The page has a login of its own, and what it shows comes with a signature.
    Without keys a request has to name this machine: a web page that is open in its browser could otherwise send
    requests here, under a name of its own that resolves to 127.0.0.1.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, signer: Signer, origins: Collection[str] = ()) -> None:
        """`origins` are those whose pages may ask without keys, beside this server's own."""
        self.app, self.keys, self.signer, self.origins = app, keys, signer, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Content-Security-Policy", OURS if scope["path"].startswith(PAGE) else NOTHING)
            await send(message)

        try:
            scope = canonical(scope)
            self._check(scope)
        except ApiError as error:
            return await answer(error, scope, receive, hardened)
        # HEAD is answered as GET is; uvicorn, whose own the scope stays, leaves the body out.
        await self.app({**scope, "method": "GET"} if scope["method"] == "HEAD" else scope, receive, hardened)

    def _check(self, scope: Scope) -> None:
        path, headers = scope["path"], Headers(scope=scope)
        if self.keys is None:
            named = is_loopback(_host(headers.get("host", "localhost")))
            if not named or (foreign(scope) and headers.get("origin") not in self.origins):
                raise ApiError(403, "forbidden", "without keys, requests are taken from this machine's own pages alone")
            return
        role = needed(scope["method"], path)
        if role is None or path.startswith(PAGE):
            return
        if scope["method"] in ("GET", "HEAD") and self.signer.allows(path, scope["query_string"]):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        found = self.keys.role(key.strip()) if scheme.lower() == "bearer" else None
        remark(scope, key=fingerprint(key.strip()) if found else None, role=found)
        if found is None:
            raise ApiError(401, "unauthorized", "expected `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"})
        scope[CLIENT] = fingerprint(key.strip())
        if role == "write" and found != "write":
            raise ApiError(403, "forbidden", "this key may read and not write")


def _host(netloc: str) -> str:
    """Without its port."""
    return netloc.partition("]")[0] + "]" if netloc.startswith("[") else netloc.partition(":")[0]
