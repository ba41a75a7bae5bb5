"""Pages of servers in a real browser, which asks nobody else and reports no error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BEYOND = """[...document.querySelectorAll(
    'input, textarea, button:not([tabindex="-1"]), img, video, label, p, li, h1, h3')]
  .filter((part) => part.checkVisibility({visibilityProperty: true, opacityProperty: true}))
  .filter((part) => {
    const {left, right} = part.getBoundingClientRect();
    for (let around = part.parentElement; around; around = around.parentElement) {
      const room = around.getBoundingClientRect();
      const cuts = around === document.body || getComputedStyle(around).overflowX !== 'visible';
      if (cuts && (right > room.right + 1 || left < room.left - 1)) return true;
    }
  }).map((part) => part.outerHTML.slice(0, 200))"""
"""What is cut off to the left or right."""
WIDE, NARROW = (1280, 1000), (390, 844)
"""A screen, and a telephone's."""


@dataclass
class Seen:
    page: Page
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def fits(self) -> None:
        """Nothing has to be scrolled for sideways, or is cut off there."""
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        cut = self.page.evaluate(BEYOND)
        assert cut == [], cut


@contextmanager
def opened(browser: Browser, client: httpx.Client, size: tuple[int, int] = WIDE) -> Iterator[Seen]:
    """The page of a server, opened; afterwards nothing may have gone wrong, and nothing been asked of anybody else."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    found = Seen(context.new_page())
    found.page.set_default_timeout(60_000)
    found.page.on("console", lambda m: found.troubles.append(m.text) if m.type == "error" else None)
    found.page.on("pageerror", lambda error: found.troubles.append(str(error)))
    found.page.on("dialog", lambda dialog: (found.troubles.append(dialog.message), dialog.dismiss()))
    found.page.on("request", lambda asked: found.requests.append(asked.url))
    found.page.goto(f"{client.base_url}")
    yield found
    context.close()
    assert found.troubles == []
    own = (f"http://127.0.0.1:{client.base_url.port}/", "data:", "blob:")
    assert [url for url in found.requests if not url.startswith(own)] == []


def sent(client: httpx.Client, inputs: int, *data: Any) -> dict[str, Any]:
    """What comes of the first event with so many inputs when something else than the page sends its data."""
    config = client.get("/page/config").json()
    event = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == inputs)
    body = {"data": data, "fn_index": event, "session_hash": "strange"}
    assert client.post("/page/gradio_api/queue/join", json=body).status_code == 200
    with client.stream("GET", "/page/gradio_api/queue/data", params={"session_hash": "strange"}) as answer:
        lines = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
        done: dict[str, Any] = next(line for line in lines if line["msg"] == "process_completed")
    return done


def named(path: object) -> dict[str, Any]:
    """A file as Gradio's pages name it."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}
