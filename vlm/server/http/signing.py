"""Addresses that a browser may fetch without a key for an hour: an `<img>` cannot send one."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import parse_qs

SECONDS = 3600


class Signer:
    """Signs with a secret that lives as long as the process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def signed(self, path: str) -> str:
        """An address of `addresses.address` with a signature."""
        until = str(int(time.time()) + SECONDS)
        return f"{path}?until={until}&signature={self._of(path, until)}"

    def allows(self, path: str, query: bytes) -> bool:
        fields = parse_qs(query.decode("latin-1"))
        until, signature = (fields.get(name, [""])[0] for name in ("until", "signature"))
        if not until.isdecimal() or len(until) > 12 or int(until) < time.time():
            return False
        return hmac.compare_digest(signature.encode(), self._of(path, until).encode())

    def _of(self, path: str, until: str) -> str:
        return hmac.new(self._secret, f"{until} {path}".encode(), hashlib.sha256).hexdigest()
