"""What pages of other origins can make a browser do here: nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from vlm.server.http.auth import Keys
from vlm.server.http.browsers import BURST, SECONDS, Cookies, kept_here, own
from vlm.server.http.settings import Settings

READ, WRITE = "r" * 20, "w" * 20
APP = "https://app.example"
HERE = "https://search.example.com"


def page(clock: Any = time.monotonic) -> httpx.AsyncClient:
    """Something like the page's framework: cookies for every site, and every origin may read."""

    async def anything(request: Request) -> JSONResponse:
        given = (await request.body()) == b"right"
        login = request.url.path.rstrip("/").endswith("login")
        answer = JSONResponse({"seen": request.headers.get("cookie")}, 400 if login and not given else 200)
        answer.set_cookie("token", "secret", samesite="none", secure=True)
        answer.set_cookie("other", "x", path="/", samesite="lax")
        answer.headers["Access-Control-Allow-Origin"] = request.headers.get("origin", "*")
        answer.headers["Access-Control-Allow-Credentials"] = "true"
        return answer

    app = Starlette(routes=[Route("/{path:path}", anything, methods=["GET", "POST", "OPTIONS"])])
    transport = httpx.ASGITransport(Cookies(app, clock), client=("10.0.0.1", 1))
    return httpx.AsyncClient(transport=transport, base_url=HERE)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/page/run", {}, 200),  # no browser
        ("POST", "/page/run", {"Origin": HERE}, 200),
        ("POST", "/page/run", {"Origin": HERE + ":443"}, 200),
        ("POST", "/page/run", {"Origin": "https://evil.example.com"}, 403),  # a sibling: the same site
        ("POST", "/page/run", {"Origin": HERE + ":8443"}, 403),
        ("POST", "/page/run", {"Origin": "null"}, 403),
        ("POST", "/page/run", {"Origin": ""}, 403),
        ("POST", "/page/run", {"Origin": HERE + ".evil.example"}, 403),
        ("POST", "/page/run", {"Origin": "https://user@search.example.com:99999"}, 403),
        ("OPTIONS", "/page/run", {"Origin": "https://evil.example.com"}, 403),
        ("POST", "/page/login", {"Origin": "https://evil.example.com"}, 403),
        ("GET", "/page/run", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", "/page/run", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/page/run", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/page/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", "/page/logout", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", "/page/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link
        ("GET", "/page/", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),  # typed
    ],
)
def test_one_check_for_all_that_a_cookie_reaches(method: str, path: str, headers: dict[str, str], status: int) -> None:
    async def run() -> httpx.Response:
        async with page() as client:
            return await client.request(method, path, headers=headers, content=b"right")

    answer = asyncio.run(run())
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]
    if status == 200:
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2
        for cookie in cookies:
            words = [word.strip().lower() for word in cookie.split(";")]
            assert [word for word in words if word.startswith("samesite")] == ["samesite=strict"]
            assert [word for word in words if word.startswith("path")] == ["path=/page"]
            assert "httponly" in words


def test_a_cookie_keeps_what_else_is_said_of_it() -> None:
    assert kept_here("a=b; HttpOnly; Max-Age=5; Path=/; SameSite=none; Secure") == (
        "a=b; Max-Age=5; Secure; Path=/page; HttpOnly; SameSite=strict"
    )


@pytest.mark.parametrize("host", ["search.example.com", "search.example.com:443", "SEARCH.example.com"])
def test_an_origin_is_compared_by_name_and_port(host: str) -> None:
    assert own(HERE, host)
    assert not own(HERE, "example.com")


def test_failed_logins_have_to_wait_and_others_do_not() -> None:
    now = 1000.0

    async def run() -> None:
        nonlocal now
        async with page(lambda: now) as client:

            async def tries(count: int, content: bytes = b"wrong", path: str = "/page/login") -> list[int]:
                answers = await asyncio.gather(*(client.post(path, content=content) for _ in range(count)))
                return sorted(answer.status_code for answer in answers)

            assert await tries(500) == [400] * BURST + [429] * (500 - BURST)
            assert await tries(5, path="/page/login/") == [429] * 5
            refused = await client.post("/page/login", content=b"right")
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= SECONDS
            assert await tries(3, path="/page/run") == [200] * 3
            now += SECONDS
            assert await tries(5) == [400] + [429] * 4
            now += SECONDS
            assert await tries(1, b"right") == [200]
            now += SECONDS * BURST
            for _ in range(50):
                assert await tries(1, b"right") == [200]

    asyncio.run(run())


def test_pages_that_are_named_may_ask_with_keys_and_without_cookies(tmp_path: Path) -> None:
    keys = Keys({READ: "read", WRITE: "write"})
    with served(Settings(root=tmp_path, origins=(APP,)), keys=keys) as client:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        before = client.options("/v1/embeddings", headers={"Origin": APP, **asks})
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == APP
        assert "authorization" in before.headers["access-control-allow-headers"].lower()
        bearer = {"Authorization": f"Bearer {READ}"}
        answer = client.get("/v1/collections", headers={"Origin": APP, **bearer})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        assert "access-control-allow-credentials" not in answer.headers
        assert client.get("/v1/collections", headers={"Origin": APP}).status_code == 401
        other = client.get("/v1/collections", headers={"Origin": "https://evil.example", **bearer})
        assert "access-control-allow-origin" not in other.headers
        refused = client.options("/v1/embeddings", headers={"Origin": "https://evil.example", **asks})
        assert "access-control-allow-origin" not in refused.headers


def test_without_keys_only_named_pages_and_the_servers_own_may_ask(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path, origins=("http://localhost:3000",))) as client:
        port = client.base_url.port
        for origin, status in (
            ("http://localhost:3000", 200), (f"http://127.0.0.1:{port}", 200), ("http://localhost:3001", 403),
            (f"http://127.0.0.1:{port + 1}", 403), ("https://evil.example", 403), ("null", 403),
        ):  # fmt: skip
            assert client.get("/v1/collections", headers={"Origin": origin}).status_code == status, origin
        for site, mode, status in (("cross-site", "no-cors", 403), ("cross-site", "navigate", 200), ("none", "", 200)):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
            assert client.get("/v1/collections", headers=headers).status_code == status


def test_cors_is_off_unless_it_is_asked_for(client: httpx.Client) -> None:
    port = client.base_url.port
    answer = client.get("/v1/collections", headers={"Origin": f"http://127.0.0.1:{port}"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
