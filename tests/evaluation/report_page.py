"""A report's page taken apart, for the tests that read it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from vlm.evaluation.report.write import write_reports


class Page(HTMLParser):
    """A page's elements, its scripts' content and the text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or "code"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] += data

    def rows(self, number: int = 1) -> list[dict[str, Any]]:
        return json.loads(self.scripts[f"rows-{number}"])["rows"]

    def pictures(self) -> list[str]:
        return json.loads(self.scripts["pictures"])


def page_of(run: Path, **options: Any) -> Page:
    return Page(next(p for p in write_reports(run, **options) if p.suffix == ".html").read_text(encoding="utf-8"))
