"""The chat page in a real browser: headless Chromium."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chatting import Script, ask, chatting, data_url
from pages import NARROW, WIDE, Seen, named, opened, sent
from PIL import Image
from serving import CLIP, error, picture, wait

from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
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
PAGE = ChatSettings(page=True)


class Talking(Seen):
    def attach(self, *files: Path) -> None:
        self.page.locator("input[type=file]").first.set_input_files(list(files))
        self.attached(len(files))

    def attached(self, count: int) -> None:
        self.page.locator(".box .thumbnails .thumbnail-item").nth(count - 1).wait_for()

    def ask(self, text: str) -> None:
        box = self.page.locator("textarea")
        box.fill(text)
        box.press("Enter")

    def replied(self, text: str, note: str = "written") -> None:
        self.page.locator(".talk .bot").get_by_text(text, exact=True).last.wait_for()
        self.noted(note)

    def noted(self, line: str) -> None:
        """A line under the conversation, and that more may be asked."""
        self.page.locator(".note").first.get_by_text(line).wait_for()
        self.page.locator(".submit-button").wait_for()

    def stop(self) -> None:
        self.page.locator(".stop-button").click()
        self.page.locator(".submit-button").wait_for()

    def typed(self) -> str:
        return self.page.locator("textarea").input_value()

    def set(self, label: str, value: str) -> None:
        if not self.page.get_by_label(label).first.is_visible():
            self.page.get_by_text("Settings").click()
        self.page.get_by_label(label).first.fill(value)
        self.page.get_by_label(label).first.blur()


@contextmanager
def talking(
    browser: Browser, model: Model, engine: Any, settings: ChatSettings = PAGE, **options: Any
) -> Iterator[tuple[Talking, httpx.Client]]:
    size = options.pop("size", WIDE)
    with chatting(model, engine, settings, **options) as client, opened(browser, client, size) as seen:
        seen.page.locator("textarea").wait_for()
        yield Talking(**vars(seen)), client


def prompts(model: Model, engine: Script) -> list[str]:
    ids = [[token for token in asked.prompt.ids if token >= 0] for asked in engine.asked]  # below 0 are pictures
    return [model.processor.tokenizer.decode(of, control=True) for of in ids]


@pytest.fixture
def red(tmp_path: Path) -> Path:
    (tmp_path / "red.png").write_bytes(picture("red", (640, 480)))
    return tmp_path / "red.png"


def test_a_picture_is_asked_about_as_over_the_api(browser: Browser, tiny_model: Model, red: Path) -> None:
    engine = Script()
    engine.go.clear()
    with talking(browser, tiny_model, engine) as (seen, client):
        seen.attach(red)
        seen.ask("What is it?")
        seen.page.get_by_text("Waiting for its turn.").wait_for()
        assert seen.typed() == ""
        engine.go.set()
        seen.replied("A red square.")
        shown = [{"type": "image_url", "image_url": {"url": data_url(red.read_bytes())}}]
        turns = [{"role": "user", "content": [*shown, {"type": "text", "text": "What is it?"}]}]
        told = ask(client, messages=turns).json()["usage"]["media"][0]
        width, height = told["size"]
        line = f"red.png: a picture of {width} x {height} pixels, {told['image_tokens']} image tokens"
        seen.page.locator(".shown").get_by_text(line).wait_for()
        assert seen.page.locator(".frames .thumbnail-item").count() == 1
        seen.set("Most tokens", "7")
        seen.set("Temperature", "0.5")
        seen.ask("And now?")
        seen.page.locator(".talk .bot").nth(1).wait_for()
        seen.replied("A red square.")
        turns += [{"role": "assistant", "content": "A red square."}, {"role": "user", "content": "And now?"}]
        ask(client, messages=turns, max_tokens=7, temperature=0.5)
    for page, api in ((0, 1), (2, 3)):
        page, api = engine.asked[page], engine.asked[api]
        assert (page.prompt.ids, page.max_tokens, page.sampling) == (api.prompt.ids, api.max_tokens, api.sampling)
    assert engine.asked[2].sampling.temperature == 0.5


def test_words_come_one_by_one_until_it_is_stopped(browser: Browser, tiny_model: Model) -> None:
    engine = Script(["ha"], endless=True, pace=0.05)
    with talking(browser, tiny_model, engine) as (seen, client):
        seen.ask("laugh")
        bot = seen.page.locator(".talk .bot .message")
        bot.get_by_text("haha").wait_for()
        first = bot.inner_text()
        seen.page.wait_for_function(
            "(n) => document.querySelector('.talk .bot .message').innerText.length > n", arg=len(first)
        )
        assert not engine.cancelled
        seen.stop()
        wait(lambda: engine.cancelled, 30)
        wait(lambda: b"vlm_replies_running 0.0" in client.get("/metrics").content, 30)
        kept = bot.inner_text().strip()
        assert kept.startswith("haha")
        engine.endless = False
        seen.ask("more")
        seen.noted("written")
        (said,) = prompts(tiny_model, engine)[1:]
        assert "laugh" in said
        assert "haha" in said


def test_a_stop_frees_the_memory_of_a_real_engine(browser: Browser, tiny_model: Model) -> None:
    class Slow(Engine):
        def step(self) -> bool:
            time.sleep(0.05)
            return super().step()

    engine = Slow(tiny_model.model, tiny_model.processor, EngineSettings(keep_prompts=False)).start()
    with talking(browser, tiny_model, engine) as (seen, _):
        seen.ask("hello")
        wait(lambda: engine.nbytes)
        seen.page.locator(".talk .bot").wait_for()
        assert engine.nbytes
        seen.stop()
        wait(lambda: not engine.nbytes, 30)
    engine.close()


def test_one_that_is_stopped_before_its_first_word_goes_back_where_it_was_typed(
    browser: Browser, tiny_model: Model, red: Path
) -> None:
    engine = Script()
    engine.go.clear()
    with talking(browser, tiny_model, engine) as (seen, _):
        seen.attach(red)
        seen.ask("What is it?")
        seen.page.get_by_text("Waiting for its turn.").wait_for()
        seen.page.locator("textarea").fill("typed since")
        seen.stop()
        wait(lambda: engine.cancelled, 30)
        seen.attached(1)
        assert seen.typed() == "What is it?\ntyped since"
        assert seen.page.locator(".talk .user").count() == 0


@pytest.mark.parametrize("writes", [True, False])
def test_who_closes_the_page_takes_the_request_along(browser: Browser, tiny_model: Model, writes: bool) -> None:
    engine = Script(["ha"], endless=True, pace=0.05)
    if not writes:
        engine.go.clear()
    with talking(browser, tiny_model, engine) as (seen, client):
        seen.ask("laugh")
        wait(lambda: engine.asked)
        assert not engine.cancelled
        seen.page.close()
        wait(lambda: engine.cancelled, 30)
        wait(lambda: b"vlm_replies_running 0.0" in client.get("/metrics").content, 30)


def test_it_begins_anew(browser: Browser, tiny_model: Model, red: Path) -> None:
    engine = Script(["ha"], endless=True, pace=0.05)
    with talking(browser, tiny_model, engine) as (seen, _):
        seen.attach(red)
        seen.ask("laugh")
        seen.page.locator(".talk .bot").get_by_text("haha").wait_for()
        seen.page.get_by_role("button", name="Start anew").click()
        wait(lambda: engine.cancelled, 30)
        seen.page.locator(".talk .user").wait_for(state="detached")
        seen.page.locator(".submit-button").wait_for()
        assert seen.page.locator(".frames .thumbnail-item").count() == 0
        engine.endless = False
        seen.ask("again")
        seen.noted("written")
        assert "laugh" not in prompts(tiny_model, engine)[1]
        assert engine.asked[1].prompt.media == ()
        assert seen.page.locator(".talk .user").count() == 1


def test_the_frames_of_a_clip_are_shown_with_their_times(browser: Browser, tiny_model: Model, tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (64, 48), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "two.gif", save_all=True, append_images=[blue])
    with talking(browser, tiny_model, Script()) as (seen, client):
        clip = {"type": "video_url", "video_url": {"url": data_url(CLIP.read_bytes(), "video/mp4")}}
        told = ask(client, messages=[{"role": "user", "content": [clip]}]).json()["usage"]["media"][0]
        seen.attach(tmp_path / "two.gif", CLIP)
        seen.ask("What happens?")
        seen.replied("A red square.")
        times = ", ".join(f"{time:.2f}" for time in told["times"])
        line = f"{CLIP.name}: {told['frames']} frames of {told['size'][0]} x {told['size'][1]} pixels"
        seen.page.locator(".shown ol > li").nth(1).get_by_text(line).wait_for()
        seen.page.locator(".shown ol > li").nth(1).get_by_text(
            f"{told['image_tokens']} image tokens, at {times} s"
        ).wait_for()
        note = "two.gif: several frames, the first one is used"
        assert seen.page.locator(".shown ol > li").first.locator("li").all_inner_texts() == [note]
        captions = seen.page.locator(".frames .caption-label").all_inner_texts()
        assert [text.strip() for text in captions] == ["1", *(f"2: {time:.2f} s" for time in told["times"])]
        seen.page.wait_for_function(
            "[...document.querySelectorAll('.frames img')].every((i) => i.complete && i.naturalWidth)"
        )


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
