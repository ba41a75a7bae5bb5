"""The page of `vlm serve all` in a real browser: collections and a conversation, a tab each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chatting import Script, loaded
from pages import NARROW, WIDE, Seen, opened
from searching import Searching, searching
from serving import picture, running
from talking import Talking, prompts

from vlm.facade import Model
from vlm.server.combined import CombinedSettings, create_app
from vlm.server.http.auth import Keys

pytestmark = pytest.mark.process

pytest.importorskip("gradio", reason="gradio is not installed (pip: vlm[page])")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COLOURS = ("red", "lime", "blue", "orange")
READ, WRITE = "r" * 20, "w" * 20
SIZES = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])


@contextmanager
def serving(model: Model, engine: Script, root: Path, keys: Keys | None = None, **more: Any) -> Iterator[httpx.Client]:
    """With pictures in a collection `holiday`."""
    settings = CombinedSettings(root=root, engine="flat", page=True, **more)

    def app(failed: Any) -> Any:
        return create_app(settings, lambda: loaded(model, engine), keys, failed)

    with running(app, settings.limits) as client:
        client.headers["Authorization"] = f"Bearer {WRITE}"
        for colour in COLOURS:
            files = {"file": (f"{colour}.png", picture(colour, (640, 480)))}
            sent = client.post("/v1/collections/holiday/items", files=files, data={"id": colour})
            assert sent.json()["items"][0]["status"] == "added"
        yield client


def tab(seen: Seen, name: str) -> None:
    seen.page.get_by_role("tab", name=name).click()


def chats(seen: Seen) -> Talking:
    """The tab of conversations."""
    tab(seen, "Chat")
    seen.page.locator(".box textarea").wait_for()
    return Talking(**vars(seen))


def searches(seen: Seen) -> Searching:
    """The tab of collections."""
    tab(seen, "Collections")
    return searching(seen)


def login(seen: Seen, role: str, key: str) -> None:
    seen.page.get_by_label("username").fill(role)
    seen.page.get_by_label("password").fill(key)
    assert seen.page.get_by_role("tab").count() == 0
    seen.page.get_by_role("button", name="Login").click()
    seen.page.get_by_role("tab", name="Chat").wait_for()
    seen.troubles = [line for line in seen.troubles if "401" not in line]


@SIZES
def test_a_picture_is_asked_about_and_found(
    browser: Browser, tiny_model: Model, red: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    engine = Script()
    with serving(tiny_model, engine, tmp_path / "root") as client, opened(browser, client, size) as seen:
        talks = chats(seen)
        assert seen.page.title() == "vlm"
        talks.attach(red)
        talks.ask("What is it?")
        talks.replied("A red square.")
        seen.page.locator(".shown").get_by_text("red.png: a picture").wait_for()
        seen.fits()
        shot(seen, tmp_path, "chat", size)
        finds = searches(seen)
        seen.page.locator("input[type=file]").first.set_input_files(red)
        seen.page.get_by_text("4 of 4 in holiday").wait_for()
        assert finds.names()[0] == "red"
        seen.page.wait_for_function("[...document.querySelectorAll('.found img')].every((i) => i.naturalWidth)")
        seen.fits()
        shot(seen, tmp_path, "search", size)
        talks = chats(seen)
        talks.ask("And now?")
        seen.page.locator(".talk .bot").nth(1).wait_for()
        talks.replied("A red square.")
        said = prompts(tiny_model, engine)[1]
        assert "What is it?" in said
        assert len(engine.asked[1].prompt.media) == 1


def shot(seen: Seen, folder: Path, name: str, size: tuple[int, int]) -> None:
    """A picture of it, to look at where `VLM_SCREENSHOTS` names a folder."""
    folder = Path(os.environ.get("VLM_SCREENSHOTS") or folder)
    seen.page.screenshot(path=folder / f"{name}-{size[0]}.png", full_page=True)


def test_a_reply_goes_on_while_somebody_searches(browser: Browser, tiny_model: Model, tmp_path: Path) -> None:
    engine = Script(["ha"], endless=True, pace=0.05)
    with serving(tiny_model, engine, tmp_path / "root") as client, opened(browser, client) as seen:
        talks = chats(seen)
        talks.ask("laugh")
        seen.page.locator(".talk .bot").get_by_text("haha").wait_for()
        finds = searches(seen)
        said = engine.said
        finds.search("blue", "4 of 4 in holiday")
        assert not engine.cancelled
        chats(seen)
        seen.page.wait_for_function(
            "(n) => document.querySelector('.talk .bot .message').innerText.trim().length > n", arg=2 * said
        )
        talks.stop()


@SIZES
def test_one_login_is_for_both_and_a_key_that_reads_changes_nothing(
    browser: Browser, tiny_model: Model, red: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    engine, keys, log = Script(), Keys({READ: "read", WRITE: "write"}), tmp_path / "audit.log"
    with serving(tiny_model, engine, tmp_path / "root", keys, audit_log=log) as client:
        for role, key, told in (
            ("read", READ, "This login may read and not write."),
            ("write", WRITE, "1 added, 0 refused."),
        ):
            with opened(browser, client, size) as seen:
                login(seen, role, key)
                finds = searches(seen)
                finds.search("blue", "4 of 4 in holiday")
                tab(seen, "Upload")
                seen.page.locator("input[type=file][multiple]").first.set_input_files(red)
                seen.page.locator(".file-preview").wait_for()
                seen.page.get_by_role("button", name="Add", exact=True).click()
                seen.page.get_by_text(told).wait_for()
                talks = chats(seen)
                talks.ask("hello")
                talks.replied("A red square.")
                seen.fits()
        assert client.get("/v1/collections/holiday").json()["count"] == 5
        for path in ("config", "gradio_api/queue/data?session_hash=s"):
            assert client.get(f"/page/{path}").status_code == 401
        assert client.get("/page/config", headers={"Origin": "https://evil.example"}).status_code == 403
        changed = [line for line in map(json.loads, log.read_text().splitlines()) if line["path"] == "/page"]
        assert [(line["login"], line["collection"]) for line in changed] == [("write", "holiday")]
    clients = {asked.client for asked in engine.asked}
    assert len(clients) == 2
    assert "" not in clients
