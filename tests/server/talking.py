"""The chat page of a server, as a browser's user has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from chatting import Script, chatting
from pages import WIDE, Seen, opened

from vlm.facade import Model
from vlm.server.chat.settings import ChatSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGE = ChatSettings(page=True)


class Talking(Seen):
    def attach(self, *files: Path) -> None:
        self.page.locator(".box input[type=file]").set_input_files(list(files))
        self.attached(len(files))

    def attached(self, count: int) -> None:
        self.page.locator(".box .thumbnails .thumbnail-item").nth(count - 1).wait_for()

    def ask(self, text: str) -> None:
        box = self.page.locator(".box textarea")
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
        return self.page.locator(".box textarea").input_value()

    def set(self, label: str, value: str) -> None:
        field = self.page.get_by_label(label).first
        if not field.is_visible():
            self.page.get_by_text("Settings").click()
            field.wait_for()
            self.page.wait_for_timeout(300)  # Gradio fills a field once more after it is shown
        field.fill(value)
        field.press("Tab")


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
