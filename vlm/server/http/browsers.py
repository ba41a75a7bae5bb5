"""What browsers add to a request that somebody else's page makes them send: cookies, and their place on this machine.

One check says whose page it was. Pages of sibling subdomains are others' too, though browsers call them the same site.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm.server.http.errors import ApiError, answer, busy

PAGE = "/page"
HEARTBEAT = f"{PAGE}/gradio_api/heartbeat/"
"""An answer that lasts as long as the page is open, and tells nothing."""
DEFAULT_PORTS = {"http": 80, "https": 443}
BURST, SECONDS, CLIENTS = 10, 10.0, 10_000
"""Failed logins of a client before it has to wait, between two from then on; clients that are remembered."""


def foreign(scope: Scope) -> bool:
    """Whether a page of another origin than this server's sent a request; not what leads a reader here by a link."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None:
        return not own(origin, headers.get("host", ""))
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    # Deeper in the page some addresses act: a logout.
    start = scope["path"].rstrip("/") == PAGE or not scope["path"].startswith(PAGE)
    return not (start and scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate")


def own(origin: str, host: str) -> bool:
    """Whether an `Origin` is that of the server that a request calls `host`."""
    try:
        found = urlsplit(origin)
        port = found.port or DEFAULT_PORTS[found.scheme]
        named = urlsplit(f"{found.scheme}://{host}")
        return (found.hostname, port) == (named.hostname, named.port or DEFAULT_PORTS[found.scheme])
    except (ValueError, KeyError):  # `null`, and what is no origin
        return False


class Throttle:
    """Of each client `BURST` failures at once, then one every `SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._owed = clock, dict[str, tuple[float, float]]()

    def take(self, client: str) -> None:
        """Count a try as failed before it is known. Raises `ApiError` 429 where there were too many."""
        owed = self._now(client)
        if owed > BURST - 1:
            raise busy("too many failed logins", (owed - BURST + 1) * SECONDS)
        self._owed.pop(client, None)
        if len(self._owed) >= CLIENTS:
            del self._owed[next(iter(self._owed))]  # the one that has been quiet for longest
        self._owed[client] = (owed + 1, self._clock())

    def give_back(self, client: str) -> None:
        """It did not fail."""
        self._owed[client] = (max(0.0, self._now(client) - 1), self._clock())

    def _now(self, client: str) -> float:
        owed, since = self._owed.get(client, (0.0, 0.0))
        return max(0.0, owed - (self._clock() - since) / SECONDS)


class Cookies:
    """All that a cookie reaches: the page. It takes its own pages' requests only, and no login tries without end.

    What the framework says of cookies and of other origins, for pages that are embedded elsewhere, is taken back.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self._throttle = app, Throttle(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PAGE):
            return await self.app(scope, receive, send)
        login = scope["method"] == "POST" and scope["path"].rstrip("/") == f"{PAGE}/login"
        client = _network(scope)

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                if login and message["status"] < 400:
                    self._throttle.give_back(client)
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                cookies = headers.getlist("set-cookie")
                del headers["set-cookie"]
                for cookie in cookies:
                    headers.append("set-cookie", kept_here(cookie))
            await send(message)

        try:
            if foreign(scope):
                raise ApiError(403, "forbidden", "expected a request of this server's own page")
            if login:
                self._throttle.take(client)
        except ApiError as error:
            return await answer(error, scope, receive, send)
        await self.app(scope, receive, strict)


def kept_here(cookie: str) -> str:
    """A `Set-Cookie` that is sent with this page's own requests alone, and that no script reads."""
    kept = re.sub(r";\s*(samesite|path)=[^;]*|;\s*httponly", "", cookie, flags=re.I)
    return f"{kept}; Path={PAGE}; HttpOnly; SameSite=strict"


def _network(scope: Scope) -> str:
    """Whoever has one IPv6 address has 2^64."""
    host = (scope.get("client") or ("",))[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network(f"{found}/64", strict=False)) if found.version == 6 else host
