"""Hostile places: paths that leave a folder and URLs that lead inside, each with the answer it gets."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile import PATHS, URLS, lay_traps, resolves
from serving import error, picture, served

from vlm.server.http.settings import Limits, Settings
from vlm.server.http.sources import Sources


@pytest.mark.parametrize(("path", "status"), PATHS)
def test_paths_that_lead_elsewhere(client: httpx.Client, c: str, media: Path, path: str, status: int) -> None:
    lay_traps(media)
    answer = client.post(f"{c}/items", json={"path": path})
    assert answer.status_code == status, answer.text
    error(answer)
    assert str(media) not in answer.text


def test_a_link_inside_the_folder_is_followed(client: httpx.Client, c: str, media: Path) -> None:
    (media / "real.png").write_bytes(picture())
    (media / "inner.png").symlink_to("real.png")
    assert client.post(f"{c}/items", json={"path": "inner.png"}).status_code == 200


def test_a_folder_that_becomes_a_link_meanwhile(
    client: httpx.Client, c: str, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a path and its opening."""
    outside = media.parent / "elsewhere"
    for folder in (outside, media / "swapped"):
        folder.mkdir()
        (folder / "a.png").write_bytes(picture())
    real = Sources.find

    def swapped(self: Sources, name: str) -> Path:
        found = real(self, name)
        (media / "swapped").rename(media / "before")
        (media / "swapped").symlink_to(outside)
        return found

    assert client.post(f"{c}/items", json={"path": "swapped/a.png"}).status_code == 200
    monkeypatch.setattr(Sources, "find", swapped)
    assert error(client.post(f"{c}/items", json={"path": "swapped/a.png"})) == (404, "path_not_found")


def test_a_server_without_folders_takes_no_paths(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path)) as client:
        client.post("/v1/collections", json={"name": "c"})
        assert error(client.post("/v1/collections/c/items", json={"path": "/etc/passwd"})) == (403, "path_refused")


# URLs


class Redirecting(http.server.BaseHTTPRequestHandler):
    """A public server that leads to a private one."""

    target = ""

    def do_GET(self) -> None:
        if self.path == "/picture.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture("blue"))
        else:
            self.send_response(302)
            self.send_header("Location", self.target)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that fetches URLs."""
    settings = Settings(root=tmp_path_factory.mktemp("root"), urls=True, limits=Limits(fetch_seconds=2))
    with served(settings) as client:
        client.post("/v1/collections", json={"name": "c"})
        yield client


def test_urls_are_not_fetched_unless_asked(client: httpx.Client, c: str) -> None:
    assert error(client.post(f"{c}/items", json={"url": "https://example.com/a.png"})) == (403, "url_refused")
    image_url = {"image_url": {"url": "https://example.com/a.png"}}
    assert error(client.post("/v1/embeddings", json={"input": image_url})) == (403, "url_refused")


@pytest.mark.parametrize("url", URLS)
def test_urls_that_lead_inside(fetching: httpx.Client, url: str) -> None:
    answer = fetching.post("/v1/collections/c/items", json={"url": url})
    assert answer.status_code == 400, answer.text
    assert error(answer)[1] in ("url_refused", "bad_input")


def test_a_public_name_with_a_private_address(fetching: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for addresses in (["10.1.2.3"], ["93.184.216.34", "127.0.0.1"]):
        resolves(monkeypatch, *addresses)
        answer = fetching.post("/v1/collections/c/items", json={"url": "http://public.example/a.png"})
        assert error(answer) == (400, "url_refused")
        assert "10.1.2.3" not in answer.text


def test_a_redirect_to_a_private_address(fetching: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first hop is let through, as a public server would be; the second one is checked for itself."""
    from vlm.media import urls

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    port = httpd.server_address[1]
    real = urls._public_address
    seen: list[str] = []

    def first_only(url: str, host: str, *rest: Any) -> str:
        seen.append(url)
        return "127.0.0.1" if host == "public.example" else real(url, host, *rest)

    monkeypatch.setattr(urls, "_public_address", first_only)
    add = "/v1/collections/c/items"
    assert fetching.post(add, json={"url": f"http://public.example:{port}/picture.png"}).status_code == 200
    for target in (f"http://127.0.0.1:{port}/picture.png", "file:///etc/passwd", "http://169.254.169.254/"):
        Redirecting.target = target
        answer = fetching.post(add, json={"url": f"http://public.example:{port}/away"})
        assert error(answer) == (400, "url_refused")
    assert len(seen) == 6  # file:// does not get as far as an address
    httpd.shutdown()
    httpd.server_close()
