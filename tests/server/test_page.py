"""The page in a real browser: headless Chromium."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pages import NARROW, named, opened, sent
from searching import Searching, searching
from serving import CLIP, picture, served

from vlm.server.http.auth import Keys
from vlm.server.http.settings import Settings

pytestmark = pytest.mark.process

pytest.importorskip("gradio", reason="gradio is not installed (pip: vlm[page])")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)>"
READ, WRITE = "r" * 20, "w" * 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served(Settings(root=tmp_path_factory.mktemp("root"), page=True)) as client:
        client.post("/v1/collections", json={"name": "holiday"})
        add = "/v1/collections/holiday/items"
        for colour in ("red", "orange", "yellow", "lime", "cyan", "blue"):
            client.post(add, files={"file": (f"{colour}.png", picture(colour, (640, 480)))}, data={"id": colour})
        with CLIP.open("rb") as file:
            client.post(add, files={"file": ("night.mp4", file)}, data={"id": "night"})
        client.post(add, json={"id": HOSTILE, "text": HOSTILE})
        yield client


@pytest.fixture
def seen(browser: Browser, running: httpx.Client) -> Iterator[Searching]:
    with opened(browser, running) as found:
        yield searching(found)


def test_words_find_pictures(seen: Searching, tmp_path: Path) -> None:
    seen.search("blue", "8 of 8 in holiday")
    assert seen.names()[0] == "blue"
    images = seen.page.locator(".found img")
    seen.page.wait_for_function(
        "[...document.querySelectorAll('.found img')].every((i) => i.complete && i.naturalWidth)"
    )
    assert images.count() == 6
    scores = [float(text) for text in seen.page.locator(".found .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    assert seen.page.locator(".found .words").inner_text() == HOSTILE
    seen.page.screenshot(path=os.environ.get("VLM_SCREENSHOT") or tmp_path / "page.png", full_page=True)


def test_it_fits_on_a_telephone(browser: Browser, running: httpx.Client, tmp_path: Path) -> None:
    with opened(browser, running, NARROW) as found:
        seen = searching(found)
        seen.search("blue", "8 of 8 in holiday")
        seen.page.screenshot(path=tmp_path / "narrow.png", full_page=True)
        seen.fits()
        seen.page.get_by_role("tab", name="Browse").click()
        seen.page.get_by_role("button", name="From the beginning").click()
        seen.page.locator('figure[data-id="red"]').get_by_role("button", name="Open").click()
        seen.page.locator(".opened pre").get_by_text("red.png").wait_for()
        seen.page.screenshot(path=os.environ.get("VLM_SCREENSHOT") or tmp_path / "opened.png", full_page=True)
        seen.fits()


def test_more_like_this_and_filters(seen: Searching) -> None:
    seen.search("blue", "8 of 8 in holiday")
    seen.page.locator('figure[data-id="red"]').get_by_role("button").click()
    seen.page.get_by_text("7 of 8 in holiday").wait_for()
    assert "red" not in seen.names()
    seen.page.get_by_label("Filter").fill('{"_name": {"in": ["lime.png", "cyan.png"]}}')
    seen.search("lime", "2 of 8 in holiday")
    assert seen.names() == ["lime", "cyan"]
    seen.page.get_by_label("Filter").fill("{")
    seen.search("lime", "expected a JSON object")
    assert seen.names() == []


def test_a_clip_opens_at_the_moment(seen: Searching, running: httpx.Client) -> None:
    seen.search("black", "8 of 8 in holiday")
    hits = running.post("/v1/collections/holiday/search", json={"text": "black"}).json()["hits"]
    start = next(hit["moment"]["start"] for hit in hits if hit["id"] == "night")
    video = seen.page.locator('figure[data-id="night"] video')
    assert f"#t={start:.2f}," in str(video.get_attribute("src"))
    can = seen.page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.42E01E\"')")
    if can:
        seen.page.wait_for_function("document.querySelector('.found video').readyState >= 1")
        assert video.evaluate("(v) => v.currentTime") == pytest.approx(start, abs=0.2)


def test_a_picture_that_is_dropped_finds_its_like(seen: Searching, tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(picture("cyan"))
    seen.page.locator("input[type=file]").first.set_input_files(tmp_path / "q.png")
    seen.page.get_by_text("8 of 8 in holiday").wait_for()
    assert seen.names()[0] == "cyan"


def test_files_are_added_or_refused(seen: Searching, running: httpx.Client, tmp_path: Path) -> None:
    running.post("/v1/collections", json={"name": "a-new-one"})
    seen.page.reload()
    seen.page.wait_for_function("[...document.querySelectorAll('input')].some((field) => field.value === 'a-new-one')")
    (tmp_path / "good.png").write_bytes(picture("green"))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    seen.page.get_by_role("tab", name="Upload").click()
    seen.page.locator("input[type=file][multiple]").set_input_files([tmp_path / "good.png", tmp_path / "bad.png"])
    seen.page.get_by_text("good").first.wait_for()
    seen.page.get_by_label("Metadata of all of them").fill('{"year": 2024}')
    seen.page.get_by_role("button", name="Add", exact=True).click()
    seen.page.get_by_text("1 added, 1 refused.").wait_for()
    hits = running.post("/v1/collections/a-new-one/search", json={"text": "green"}).json()["hits"]
    assert [hit["metadata"]["year"] for hit in hits] == [2024]
    running.delete("/v1/collections/a-new-one")


def test_a_file_that_was_not_uploaded_is_refused(running: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture("green"))
    for path, why in ((tmp_path / "secret.png", "was not uploaded"), ("http://127.0.0.1:9/", "a URL")):
        done = sent(running, 3, "stolen", [named(path)], "")
        assert not done["success"]
        assert why in done["output"]["error"]
    assert running.get("/v1/collections/stolen").status_code == 404


def test_entries_are_browsed_opened_and_deleted(seen: Searching, running: httpx.Client) -> None:
    running.delete("/v1/collections/holiday-2")
    items = [{"id": f"{n:03}", "text": f"text {n}", "metadata": {"n": n}} for n in range(30)]
    running.post("/v1/collections/0-many/items", json={"items": items})
    seen.page.reload()
    seen.page.wait_for_function("[...document.querySelectorAll('input')].some((field) => field.value === '0-many')")
    seen.page.get_by_role("tab", name="Browse").click()
    seen.page.get_by_role("button", name="From the beginning").click()
    seen.page.get_by_text("24 of 30 in 0-many").wait_for()
    seen.page.get_by_role("button", name="Next page").click()
    seen.page.get_by_text("6 of 30 in 0-many, the last ones").wait_for()
    assert seen.names() == [f"{n:03}" for n in range(24, 30)]
    seen.page.locator('figure[data-id="025"]').get_by_role("button", name="Open").click()
    seen.page.locator(".opened pre").get_by_text('"n": 25').wait_for()
    seen.page.locator('figure[data-id="025"]').get_by_role("button", name="Delete").click()
    seen.page.get_by_text("025 is deleted.").wait_for()
    assert seen.names() == ["024", "026", "027", "028", "029"]
    assert running.get("/v1/collections/0-many").json()["count"] == 29
    seen.page.get_by_label("Only those that fit").fill('{"n": {"lt": 2}}')
    seen.page.get_by_role("button", name="From the beginning").click()
    seen.page.get_by_text("2 of 29 in 0-many, the last ones").wait_for()
    running.delete("/v1/collections/0-many")


def test_a_fresh_server_s_page_adds(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture("green"))
    with served(Settings(root=tmp_path / "root", page=True)) as client:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{client.base_url}/page")
        page.get_by_label("Words").fill("green")
        page.get_by_role("button", name="Search", exact=True).click()
        page.get_by_text("There is no collection yet").wait_for()
        page.get_by_role("tab", name="Upload").click()
        page.locator("input[type=file][multiple]").set_input_files(tmp_path / "good.png")
        page.get_by_text("good").first.wait_for()
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("1 added, 0 refused.").wait_for()
        page.get_by_role("tab", name="Search").click()
        page.get_by_role("button", name="Search", exact=True).click()
        page.get_by_text("1 of 1 in photos").wait_for()
        page.close()
        assert client.get("/v1/collections/photos").json()["count"] == 1


def test_with_keys_the_page_asks_for_one(browser: Browser, tmp_path: Path) -> None:
    keys = Keys({READ: "read", WRITE: "write"})
    with served(Settings(root=tmp_path, page=True), keys=keys) as client:
        client.post("/v1/collections", json={"name": "c"}, headers={"Authorization": f"Bearer {WRITE}"})
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{client.base_url}/page/")
        page.get_by_label("username").fill("read")
        page.get_by_label("password").fill(READ)
        assert page.get_by_label("Words").count() == 0
        page.get_by_role("button", name="Login").click()
        page.get_by_label("Words").wait_for()
        page.close()
        refused: Any = client.post("/page/login", data={"username": "write", "password": READ})
        assert refused.status_code == 400
        assert client.get("/page/config").status_code == 401
        tries = [client.post("/page/login", data={"username": "write", "password": f"{n:020}"}) for n in range(40)]
        assert [answer.status_code for answer in tries[-20:]] == [429] * 20
        assert int(tries[-1].headers["retry-after"]) >= 1


SIBLING = """<body><form action="{page}gradio_api/run" method="post"><input name="x" value="y"></form><script>
const asks = [["GET", "config"], ["POST", "gradio_api/call/x"], ["GET", "gradio_api/queue/data?session_hash=s"],
              ["POST", "gradio_api/queue/join"], ["GET", "logout"]];
Promise.all(asks.map(([method, path]) => fetch("{page}" + path, {{method, credentials: "include"}})
  .then((answer) => answer.status, () => "unread"))).then((seen) => document.title = seen.join(" "));
</script></body>"""


def test_a_page_of_a_sibling_domain_cannot_act_for_who_is_logged_in(browser: Browser, tmp_path: Path) -> None:
    keys = Keys({READ: "read", WRITE: "write"})

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(SIBLING.format(page=page_of).encode())

        def log_message(self, *_: object) -> None:
            pass

    evil = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    with served(Settings(root=tmp_path, page=True), keys=keys) as client:
        page_of = f"http://search.site.localhost:{client.base_url.port}/page/"
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(page_of)
        page.get_by_label("username").fill("write")
        page.get_by_label("password").fill(WRITE)
        page.get_by_role("button", name="Login").click()
        page.get_by_label("Words").wait_for()
        cookies = [cookie for cookie in context.cookies() if cookie["name"].startswith("access-token")]
        assert cookies
        assert {(cookie["sameSite"], cookie["path"]) for cookie in cookies} == {("Strict", "/page")}
        sibling = context.new_page()
        sibling.goto(f"http://evil.site.localhost:{evil.server_address[1]}/")
        sibling.wait_for_function("document.title !== ''")
        assert sibling.title() == " ".join(["unread"] * 5)
        with sibling.expect_navigation() as sent:
            sibling.evaluate("document.forms[0].submit()")
        assert sent.value.status == 403
        page.reload()
        page.get_by_label("Words").wait_for()  # and is logged in still
        context.close()
    evil.shutdown()
    evil.server_close()
