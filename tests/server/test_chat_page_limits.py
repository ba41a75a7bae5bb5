"""The chat page in a real browser: limits, keys, errors, sizes of windows."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chatting import CHAT, Script, Waiting, ask, chatting, data_url
from pages import NARROW, WIDE, named, opened, sent
from serving import CLIP, error, picture, wait
from talking import PAGE, prompts, talking

from vlm.facade import Model
from vlm.heads.decisions import YesNo
from vlm.heads.decisions.decider import Decider
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.http.auth import Keys

pytestmark = pytest.mark.process

pytest.importorskip("gradio", reason="gradio is not installed (pip: vlm[page])")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)> **a** `b`"
READ, WRITE = "r" * 20, "w" * 20


def test_what_is_over_a_limit_is_told_as_the_api_tells_it_and_nothing_is_lost(
    browser: Browser, tiny_model: Model, red: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.png").write_bytes(picture("blue", (20, 20)))
    (tmp_path / "noise.bmp").write_bytes(picture("blue", (90, 90), "BMP"))
    (tmp_path / "text.png").write_text("no picture")
    limits = ChatLimits(pixels=10_000, media=2, image_bytes=20_000, video_bytes=2**20, body_bytes=2**20, characters=60)
    engine = Script()
    with talking(browser, tiny_model, engine, ChatSettings(page=True, limits=limits)) as (seen, client):
        shown = [{"type": "image_url", "image_url": {"url": data_url(red.read_bytes())}}]
        refused = ask(client, messages=[{"role": "user", "content": shown}])
        assert error(refused) == (400, "bad_input")
        message = refused.json()["error"]["message"]
        seen.attach(red)
        seen.ask("What is it?")
        seen.noted(message.partition(": ")[2] or message)
        seen.attached(1)
        assert seen.typed() == "What is it?"
        assert seen.page.locator(".talk .user").count() == 0
        seen.page.locator(".box").get_by_label("Remove").first.click()
        seen.attach(tmp_path / "text.png")
        seen.ask("What is it?")
        seen.noted("text.png: expected an image (JPEG")
        seen.page.locator(".box").get_by_label("Remove").first.click()
        seen.attach(tmp_path / "noise.bmp")
        seen.ask("What is it?")
        seen.noted("noise.bmp: expected a file of at most 20000 bytes")
        seen.page.locator(".box").get_by_label("Remove").first.click()
        seen.attach(*[tmp_path / "small.png"] * 3)
        seen.ask("What is it?")
        seen.noted("expected at most 2 pictures and clips, got 3")
        seen.page.locator(".box").get_by_label("Remove").first.click()
        assert not engine.asked[1:]
        seen.ask("What is it?")
        seen.replied("A red square.")
        seen.ask("many words " * 5)
        seen.noted("messages: expected at most 60 characters")
        assert seen.typed() == "many words " * 5
        seen.set("Most tokens", "-1")
        seen.ask("Why?")
        seen.noted("max_tokens: Input should be greater than or equal to 1")


def test_bytes_of_a_conversation_are_bounded(browser: Browser, tiny_model: Model, tmp_path: Path) -> None:
    limits = ChatLimits(image_bytes=30_000, video_bytes=30_000, body_bytes=50_000)
    for number in range(3):
        (tmp_path / f"{number}.bmp").write_bytes(picture((number, 0, 0), (90, 90), "BMP"))  # 24 KB each
    (tmp_path / "large.bmp").write_bytes(picture("red", (120, 120), "BMP"))
    with talking(browser, tiny_model, Script(), ChatSettings(page=True, limits=limits)) as (seen, _):
        seen.page.locator("textarea").fill("What is it?")
        seen.page.locator("input[type=file]").first.set_input_files(tmp_path / "large.bmp")
        seen.page.get_by_text('maximum allowed size of 29.3 Kb: "large.bmp"').wait_for()
        assert seen.typed() == "What is it?"
        for number in range(3):
            seen.page.locator("input[type=file]").first.set_input_files(tmp_path / f"{number}.bmp")
            seen.attached(number + 1)
        seen.ask("What is it?")
        seen.noted("expected pictures and clips of at most 50000 bytes in a conversation, got 73")
        seen.attached(3)


def test_who_has_to_wait_and_what_fails_is_told(browser: Browser, tiny_model: Model) -> None:
    engine = Script(full=True)
    with talking(browser, tiny_model, engine) as (seen, client):
        seen.ask("hello")
        seen.noted(ask(client).json()["error"]["message"])
        assert seen.typed() == "hello"
        engine.full, engine.fails = False, RuntimeError("secret")
        seen.page.locator("textarea").press("Enter")
        seen.noted("the model failed on this request")
        assert seen.typed() == "hello"
        engine.fails = None
        seen.page.locator("textarea").press("Enter")
        seen.replied("A red square.")
        seen.page.locator("textarea").press("Enter")
        seen.noted("Write something, or add a picture or a clip.")


def test_nothing_that_is_written_is_taken_for_markup(browser: Browser, tiny_model: Model, tmp_path: Path) -> None:
    (tmp_path / "<b>*x*.png").write_bytes(picture())
    with talking(browser, tiny_model, Script(HOSTILE.split(" "))) as (seen, _):
        seen.attach(tmp_path / "<b>*x*.png")
        seen.ask(HOSTILE)
        seen.noted("written")
        assert HOSTILE in seen.page.locator(".talk .user").last.inner_text()
        assert HOSTILE.replace(" ", "") in seen.page.locator(".talk .bot").inner_text()
        assert seen.page.locator(".shown b, .talk b, .talk img[src=x]").count() == 0


def test_a_file_that_was_not_uploaded_is_refused(tiny_model: Model, red: Path) -> None:
    """Whatever a browser is made to send: this machine's files stay where they are, and no URL is fetched."""
    engine = Script()
    with chatting(tiny_model, engine, PAGE) as client:
        for path, why in (
            (red, "was not uploaded"),
            ("/etc/passwd", "was not uploaded"),
            ("http://127.0.0.1:9/", "a URL"),
        ):
            done = sent(client, 5, {"text": "What is it?", "files": [named(path)]}, None, 0, 0, False)
            assert not done["success"]
            assert why in done["output"]["error"]
            assert client.get(f"/page/gradio_api/file={path}", follow_redirects=False).status_code >= 300
    assert not engine.asked


def test_yes_or_no_with_probabilities(browser: Browser, tiny_model: Model, red: Path) -> None:
    assert tiny_model.writer is not None
    engine = Script()
    with talking(browser, tiny_model, engine, decider=Decider(tiny_model.writer)) as (seen, _):
        seen.attach(red)
        seen.page.get_by_text("Settings").click()
        seen.page.get_by_role("checkbox").check()
        seen.ask("Is it red?")
        seen.noted("of all that the model might say")
        ((found,),) = tiny_model.decide([red], [YesNo("Is it red?")])
        seen.page.locator(".talk .bot").get_by_text(found.best, exact=True).wait_for()
        lines = seen.page.locator(".chances").inner_text()
        assert f"{round(100 * found.probabilities['yes'])}%" in lines
        seen.page.locator(".shown").get_by_text("red.png: a picture").wait_for()
        assert not engine.asked
        seen.page.get_by_role("checkbox").uncheck()
        seen.ask("Why?")
        seen.replied("A red square.")
        assert found.best in prompts(tiny_model, engine)[0]
        seen.page.locator(".chances").wait_for(state="hidden")


def test_a_decision_that_is_stopped_is_not_computed_on(browser: Browser, tiny_model: Model, red: Path) -> None:
    decider = Waiting(tiny_model)
    with talking(browser, tiny_model, Script(), decider=decider) as (seen, _):
        try:
            seen.attach(red)
            seen.page.get_by_text("Settings").click()
            seen.page.get_by_role("checkbox").check()
            seen.ask("Is it red?")
            wait(lambda: decider.begun)
            seen.stop()
            wait(lambda: decider.ended, 30)
            seen.attached(1)
            assert seen.typed() == "Is it red?"
        finally:
            decider.go.set()
        seen.page.locator(".box textarea").press("Enter")
        seen.noted("of all that the model might say")
        assert (decider.begun, decider.ended) == (2, 2)


def test_what_a_turn_costs_is_in_the_access_log(browser: Browser, tiny_model: Model, tmp_path: Path) -> None:
    """As what a request to the API costs."""
    settings = ChatSettings(page=True, access_log=tmp_path / "access")
    assert tiny_model.writer is not None
    with talking(browser, tiny_model, Script(), settings, decider=Decider(tiny_model.writer)) as (seen, client):
        seen.ask("hello")
        seen.replied("A red square.")
        ask(client)
        seen.page.get_by_role("button", name="Start anew").click()
        seen.page.locator(".talk .user").wait_for(state="detached")
        seen.page.get_by_text("Settings").click()
        seen.page.get_by_role("checkbox").check()
        seen.ask("Is it red?")
        seen.noted("of all that the model might say")
        question = {"type": "predicate", "instructions": "Is it red?"}
        decided = client.post("/v1/decisions", json={"input": "Look!", "questions": [question]}).json()
    lines = [json.loads(line) for line in (tmp_path / "access").read_text().splitlines()]
    api = next(line for line in lines if line["path"] == CHAT)
    turn, decision = [line for line in lines if "login" in line]
    cost = ("prompt", "image", "cached", "reply")
    assert api["reply"] == 4
    assert [turn[key] for key in cost] == [api[key] for key in cost]
    assert (turn["client"], turn["login"], turn["path"]) == ("127.0.0.1", None, "/page")
    assert decision["prompt"] > 0
    (asked,) = [line for line in lines if line["path"] == "/v1/decisions"]
    assert asked["prompt"] == decided["usage"]["input_tokens"]


def test_with_keys_the_page_asks_for_one(browser: Browser, tiny_model: Model) -> None:
    engine = Script()
    keys = Keys({READ: "read", WRITE: "write"})
    with chatting(tiny_model, engine, PAGE, keys) as client:
        for role, key in (("read", READ), ("write", WRITE)):
            with opened(browser, client) as seen:
                page = seen.page
                page.get_by_label("username").fill(role)
                page.get_by_label("password").fill(key)
                assert page.locator("textarea").count() == 0
                page.get_by_role("button", name="Login").click()
                page.locator("textarea").wait_for()
                page.locator("textarea").fill("hello")
                page.locator("textarea").press("Enter")
                page.locator(".talk .bot").get_by_text("A red square.").wait_for()
                seen.troubles = [line for line in seen.troubles if "401" not in line]
        assert client.post("/page/login", data={"username": "write", "password": READ}).status_code == 400
        assert client.get("/page/config").status_code == 401
        assert client.post("/page/gradio_api/upload", files={"files": picture()}).status_code == 401
    clients = {asked.client for asked in engine.asked}
    assert len(clients) == 2
    assert "" not in clients


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_it_fits(browser: Browser, tiny_model: Model, red: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    words = ["A long reply", " of several words,"] * 20 + ["x" * 200]
    with talking(browser, tiny_model, Script(words), size=size) as (seen, _):
        seen.fits()
        seen.attach(red, CLIP)
        seen.ask("What happens? " * 10 + "y" * 200)
        seen.noted("written")
        seen.fits()
        seen.page.get_by_text("Settings").click()
        seen.page.get_by_label("Temperature").first.wait_for()
        seen.fits()
        seen.page.screenshot(path=os.environ.get(f"VLM_SCREENSHOT_{size[0]}") or tmp_path / "page.png", full_page=True)


def test_an_open_page_holds_up_no_server_that_ends(browser: Browser, tiny_model: Model) -> None:
    context, before = browser.new_context(), set(threading.enumerate())
    with chatting(tiny_model, Script(), PAGE) as client:
        page = context.new_page()
        with page.expect_response("**/heartbeat/*"):
            page.goto(f"{client.base_url}/page/")
        page.locator("textarea").fill("hello")
        page.locator("textarea").press("Enter")
        page.locator(".talk .bot").get_by_text("A red square.").wait_for()
    assert [thread.name for thread in set(threading.enumerate()) - before if "run" in thread.name] == []
    context.close()


def test_without_a_page_there_is_none(tiny_model: Model) -> None:
    with chatting(tiny_model, Script()) as client:
        assert client.get("/page/").status_code == 404
        assert client.get("/").status_code == 404
