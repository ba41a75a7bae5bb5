"""The chat page in a real browser: what is asked and what is shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chatting import Script, ask, data_url
from PIL import Image
from serving import CLIP, wait
from talking import prompts, talking

from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
from vlm.facade import Model

pytestmark = pytest.mark.process

pytest.importorskip("gradio", reason="gradio is not installed (pip: vlm[page])")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)> **a** `b`"
READ, WRITE = "r" * 20, "w" * 20


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
