"""Fetch a picture by URL without lending a caller the machine's own network.

A server that fetches what a stranger names can be pointed at loopback, a private range or a cloud's metadata address.
So a name is resolved once, every address it has must be public, the connection goes to the checked address, and each
redirect starts again from there. Proxy settings are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from urllib.parse import quote, urljoin, urlsplit

from vlm.errors import BadInput

MAX_BYTES = 32 * 1024 * 1024
MAX_REDIRECTS = 5
_EMBEDS_IPV4 = ipaddress.ip_network("64:ff9b::/96")  # NAT64: the last four bytes are where it leads
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # all that is given out; the rest is local, mapped or of old use


def is_url(text: object) -> bool:
    """Whether `text` is a string that begins with http:// or https://."""
    return isinstance(text, str) and text.lower().startswith(("http://", "https://"))


def fetch_url(url: str, *, allow_private: bool = False, max_bytes: int = MAX_BYTES, timeout: float = 10.0) -> bytes:
    """The body behind an http(s) `url`, at most `max_bytes`, within about `timeout` seconds.

    Raises `BadInput`, one line, for another scheme, a host that is not public (unless `allow_private`), a status
    other than 200, a body over the limit, or a connection that fails.
    """
    deadline = time.monotonic() + timeout
    target = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = _request(target, allow_private, max_bytes, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise BadInput(f"{target}: expected a URL that answers, got: {reason}") from None
        if isinstance(answer, bytes):
            return answer
        target = answer
    raise BadInput(f"{url}: expected at most {MAX_REDIRECTS} redirects, got more")


def _request(url: str, allow_private: bool, max_bytes: int, deadline: float) -> bytes | str:
    """The body, or the URL it redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{url}: expected an http:// or https:// URL with a host")
    secure = parts.scheme == "https"
    port = parts.port if parts.port is not None else 443 if secure else 80
    address = _public_address(url, parts.hostname, port, allow_private)
    connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(parts.hostname, port)
    raw = socket.create_connection((address, port), timeout=_left(deadline))
    # A time limit on the socket begins anew with each byte; this one ends the exchange, whatever it is at.
    watched = raw.dup()
    timer = threading.Timer(_left(deadline), _hang_up, [watched])
    timer.daemon = True
    timer.start()
    try:
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(raw, server_hostname=parts.hostname) if secure else raw
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        headers = {"User-Agent": "vlm", "Accept": "image/*,video/*;q=0.8", "Accept-Encoding": "identity"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        location = response.getheader("Location")
        if response.status in (301, 302, 303, 307, 308) and location:
            return urljoin(url, location)
        if response.status != 200:
            raise BadInput(f"{url}: expected status 200, got {response.status} {response.reason}")
        return _body(response, raw if not secure else connection.sock, url, max_bytes, deadline)
    except (OSError, http.client.HTTPException, ValueError, BadInput):
        _left(deadline)  # what is said of a connection that was ended here is that the time was over
        raise
    finally:
        timer.cancel()
        connection.close()
        raw.close()
        watched.close()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself meanwhile
        sock.shutdown(socket.SHUT_RDWR)


def _body(response: http.client.HTTPResponse, sock: socket.socket, url: str, max_bytes: int, deadline: float) -> bytes:
    content = bytearray()
    while True:
        if sock.fileno() >= 0:  # closed early where the whole answer has arrived
            sock.settimeout(_left(deadline))
        chunk = response.read1(65536)
        if not chunk:
            break
        content += chunk
        if len(content) > max_bytes:
            raise BadInput(f"{url}: expected at most {max_bytes} bytes, got more")
    _left(deadline)  # an end may be ours
    if response.length:
        raise BadInput(f"{url}: expected {response.length} bytes more, got the end")
    return bytes(content)


def _public_address(url: str, host: str, port: int, allow_private: bool) -> str:
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        if not allow_private and not _is_public(address):
            raise BadInput(f"{url}: expected a public address, got {address}")
    return addresses[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _EMBEDS_IPV4:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            return _is_public(str(inner))
        if address not in _PUBLIC_IPV6:
            return False
    return address.is_global and not address.is_multicast


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left
