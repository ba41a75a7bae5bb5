"""The search page of a server, as a browser's user has it."""

from __future__ import annotations

from pages import Seen


class Searching(Seen):
    def names(self) -> list[str]:
        return [str(figure.get_attribute("data-id")) for figure in self.page.locator(".found figure").all()]

    def search(self, words: str, count: str) -> None:
        self.page.get_by_label("Words").fill(words)
        self.page.get_by_role("button", name="Search", exact=True).click()
        self.page.get_by_text(count).wait_for()


def searching(found: Seen, collection: str = "holiday") -> Searching:
    """Once there is what to search."""
    found.page.get_by_label("Words").wait_for()
    found.page.wait_for_function(
        "(name) => [...document.querySelectorAll('input')].some((field) => field.value === name)", arg=collection
    )
    return Searching(**vars(found))
