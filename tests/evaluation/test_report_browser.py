"""The report's page in a real browser: headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from report_runs import HOSTILE, questions, searches, vqa, write_run

from vlm.evaluation.report.write import write_reports

pytestmark = pytest.mark.process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

COUNT = 240
TOP = 40


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with questions (some of hostile text, one picture gone), searches, and a task of none."""
    folder = tmp_path_factory.mktemp("report")
    data = folder / "data"
    samples = questions(data, COUNT, 12)
    (data / "made/11.png").unlink()
    tasks = [(vqa("colours", samples), samples), searches(data, 9), (vqa("nothing", []), [])]
    run = write_run(folder / "run", data, tasks)
    written = write_reports(run, top=TOP)
    return next(path for path in written if path.suffix == ".html").as_uri()


@dataclass
class Seen:
    """A page and whatever went wrong on it."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def samples(self, task: int = 0) -> Locator:
        """A task's sample browser, scrolled to so that it is drawn."""
        home = self.page.locator(".samples").nth(task)
        home.scroll_into_view_if_needed()
        return home


@pytest.fixture
def seen(browser: Browser, report: str, request: pytest.FixtureRequest) -> Iterator[Seen]:
    """The page opened, with the context's options as the test's parameter; afterwards nothing may have gone wrong."""
    options: dict[str, Any] = getattr(request, "param", {})
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    found = Seen(context.new_page())
    found.page.on("console", lambda message: found.troubles.append(f"console: {message.text}"))
    found.page.on("pageerror", lambda error: found.troubles.append(f"error: {error}"))
    found.page.on("dialog", lambda dialog: (found.troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    found.page.on("request", lambda asked: found.requests.append(asked.url))
    found.page.goto(report)
    yield found
    context.close()
    assert found.troubles == []
    assert [url for url in found.requests if not url.startswith("data:")] == [report]


def names(home: Locator) -> list[str]:
    """The samples on the page, in order."""
    return [text.removeprefix("#") for text in home.locator(".card .id").all_text_contents()]


def score(home: Locator, name: str) -> list[float]:
    return [float(t.split()[-1]) for t in home.locator(".scores > span", has_text=name).all_text_contents()]


def decoded(seen: Seen) -> list[int]:
    seen.page.wait_for_function("[...document.images].every((image) => image.complete)")
    return seen.page.evaluate("[...document.images].map((image) => image.naturalWidth)")


def test_thumbnails_are_decoded(seen: Seen) -> None:
    home = seen.samples()
    home.locator(".card").first.wait_for()
    widths = decoded(seen)
    assert len(widths) >= 10
    assert all(width > 0 for width in widths)


def test_worst_first_then_best_first(seen: Seen) -> None:
    home = seen.samples()
    home.locator(".card").first.wait_for()
    worst = names(home)
    assert set(score(home, "accuracy")) == {0.0}
    assert home.get_by_role("button", name="Worst first").get_attribute("aria-pressed") == "true"
    home.get_by_role("button", name="Best first").click()
    assert set(score(home, "accuracy")) == {1.0}
    assert home.get_by_role("button", name="Best first").get_attribute("aria-pressed") == "true"
    assert not set(names(home)) & set(worst)


def test_sorting_by_a_score_flips(seen: Seen) -> None:
    home = seen.samples()
    home.get_by_label("Sort by").select_option("confidence")
    low = score(home, "confidence")
    home.get_by_role("button", name="Highest first").click()
    high = score(home, "confidence")
    assert low == sorted(low)
    assert high == sorted(high, reverse=True)
    assert low[0] < high[0]
    home.get_by_label("Sort by").select_option("order of the data")
    home.get_by_role("button", name="From the start").click()
    assert names(home)[:3] == ["q0", "q1", "q2"]


def test_filters_narrow(seen: Seen) -> None:
    home = seen.samples()
    status = home.locator("[role=status]")
    home.get_by_label("Category").select_option("red")
    assert status.text_content() == f"{COUNT // 2} of {COUNT} samples"
    assert set(home.locator(".card .head .tag:last-of-type").all_text_contents()) == {"red"}
    home.get_by_label("Judged").select_option("right")
    assert status.text_content() == f"{COUNT // 6} of {COUNT} samples"
    home.get_by_label("Find").fill("number 21")
    status.filter(has_text=f"3 of {COUNT}").wait_for()
    assert sorted(names(home)) == ["q21", "q213", "q219"]
    home.get_by_label("Find").fill("no such words")
    status.filter(has_text="0 of").wait_for()
    assert home.locator(".card").count() == 0


def test_only_those_with_pictures(seen: Seen) -> None:
    home = seen.samples()
    home.get_by_label("with pictures only").check()
    told = home.locator("[role=status]").text_content() or ""
    assert TOP <= int(told.split()[0]) <= 1.25 * TOP


def test_pages_turn(seen: Seen) -> None:
    home = seen.samples()
    home.locator(".card").first.wait_for()
    first = names(home)
    assert home.get_by_role("button", name="Previous").is_disabled()
    home.get_by_role("button", name="Next").click()
    assert not set(names(home)) & set(first)
    assert "Page 2 of 10" in (home.locator(".pager").text_content() or "")
    home.get_by_label("Category").select_option("red")
    assert "Page 1 of 5" in (home.locator(".pager").text_content() or "")


def test_hostile_text_is_shown_as_text(seen: Seen) -> None:
    home = seen.samples()
    home.get_by_label("Find").fill("alert(")
    card = home.locator(".card").first
    home.locator("[role=status]").filter(has_text="of").wait_for()
    assert HOSTILE.split()[0] in (card.text_content() or "")
    assert "&lt;" not in (card.text_content() or "")
    assert card.locator("script, b b").count() == 0


def test_a_missing_picture_has_a_place_holder(seen: Seen) -> None:
    assert "pictures could not be shown" in (seen.page.locator(".notes").first.text_content() or "")
    home = seen.samples()
    home.get_by_label("Find").fill("number 11")
    home.locator("[role=status]").filter(has_text="of").wait_for()
    home.get_by_label("Sort by").select_option("order of the data")
    assert names(home)[0] == "q11"
    assert home.locator(".card").first.locator("img").count() == 0


def test_searches_mark_the_right_candidate(seen: Seen) -> None:
    home = seen.samples(1)
    home.get_by_label("Category").select_option("text_to_image")
    home.get_by_role("button", name="Best first").click()
    card = home.locator(".card").first
    assert card.locator(".found figure").count() == 5
    assert "✓ right" in (card.locator(".found figure").first.text_content() or "")
    home.get_by_role("button", name="Worst first").click()
    assert card.locator(".found figure").count() == 6
    assert "✓ right" in (card.locator(".found figure").last.text_content() or "")
    assert all(width > 0 for width in decoded(seen))


def test_an_empty_task_has_no_controls(seen: Seen) -> None:
    home = seen.samples(2)
    assert "There are none." in (home.text_content() or "")
    assert home.locator(".controls").count() == 0


def test_the_keyboard_reaches_the_order(seen: Seen) -> None:
    home = seen.samples()
    home.get_by_label("Find").focus()
    for _ in range(3):
        seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Enter")
    assert set(score(home, "accuracy")) == {1.0}


@pytest.mark.parametrize("seen", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_telephone_does_not_scroll_sideways(seen: Seen) -> None:
    for task in range(2):
        seen.samples(task).locator(".card").first.wait_for()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("seen", [{"java_script_enabled": False}], indirect=True)
def test_the_summary_needs_no_script(seen: Seen) -> None:
    assert seen.page.locator(".hero .big").first.text_content() == "20.6"
    assert "[18.2, 23.1]" in seen.page.locator(".summary").first.inner_text()
    assert seen.page.locator("svg").count() >= 2
    assert "needs JavaScript" in seen.page.locator(".samples").first.inner_text()


@pytest.mark.parametrize("seen", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_text_stands_out_in_both_schemes(seen: Seen) -> None:
    """WCAG's contrast of 4.5 to 1 between each ink and the grounds it stands on."""
    value = "(name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"
    named = ("ink", "soft", "accent", "paper", "mat", "good", "good-mat", "bad", "bad-mat")
    colours = {name: seen.page.evaluate(value, name) for name in named}
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("paper", "mat")]
    for ink, ground in [*pairs, ("good", "good-mat"), ("bad", "bad-mat")]:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(a: str, b: str) -> float:
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    code = colour.removeprefix("#")
    code = "".join(c * 2 for c in code) if len(code) == 3 else code
    channels = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
