"""The progress page in a real browser: charts are drawn, tables are sorted by keyboard, and it holds on a phone."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from annotation.models import Judgment
from tests.annotation.judging import comparisons_of, judge
from tests.cast import PASSWORD, Cast, assemble

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

OpenPage = Callable[..., Page]


@pytest.fixture
def cast(live_server: object) -> Cast:
    """Anna has judged three times and Ben once, slowly."""
    cast = assemble()
    one, two, three = comparisons_of(cast, 3, completions=2)
    for comparison in (one, two, three):
        judge(comparison, cast.anna, (1, 2), seconds=20)
    judge(one, cast.ben, (1, 2), seconds=90)
    judge(two, cast.reviewer, outcome="cannot_judge", seconds=0)
    return cast


def open_signed_in(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Username").fill("reviewer")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(address)


def column(table: Locator, number: int) -> list[str]:
    return [text.strip() for text in table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()]


def painted(canvas: Locator) -> bool:
    """Whether anything is drawn on it in a strong colour: axes alone are grey."""
    return canvas.evaluate(
        """canvas => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          for (let at = 0; at < data.length; at += 4) {
            const colour = data.slice(at, at + 3);
            if (data[at + 3] === 255 && Math.max(...colour) - Math.min(...colour) > 60) return true;
          }
          return false;
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_from_the_table_beneath_them(
    cast: Cast, live_server: object, open_page: OpenPage, scheme: str
) -> None:
    page = open_page(color_scheme=scheme)
    open_signed_in(page, f"{live_server.url}/p/tea/progress/")
    for chart in ("#chart-judgments canvas", "#chart-hours canvas"):
        expect(page.locator(chart)).to_be_visible()
        assert painted(page.locator(chart))
    table = page.locator("#days")
    expect(table).to_be_hidden()
    page.get_by_text("The same as a table").click()
    expect(table).to_be_visible()
    assert column(table, 2)[-1] == "5"


def test_tables_are_sorted_by_their_headers_with_the_keyboard(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/progress/")
    table = page.locator("#annotators-table")
    assert column(table, 1) == ["anna", "ben", "reviewer"]
    expect(table.locator("th", has_text="Judgments").first).to_have_attribute("aria-sort", "descending")

    name = table.get_by_role("button", name="Annotator")
    name.focus()
    page.keyboard.press("Enter")
    expect(table.locator("th").first).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("Enter")
    expect(table.locator("th").first).to_have_attribute("aria-sort", "descending")
    assert column(table, 1) == ["reviewer", "ben", "anna"]
    expect(name).to_be_focused()
    assert table.locator("[aria-sort]").count() == 1

    # By the number behind "1 min 30 s" and "20 s"; who has none stands last in either direction.
    median = table.get_by_role("button", name="Median")
    median.click()
    assert column(table, 1) == ["ben", "anna", "reviewer"]
    median.click()
    assert column(table, 1) == ["anna", "ben", "reviewer"]


def test_on_a_phone_nothing_runs_off_the_page_and_sorting_is_there(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    page = open_page(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    open_signed_in(page, f"{live_server.url}/p/tea/progress/")
    expect(page.locator("#chart-judgments canvas")).to_be_visible()
    page.get_by_text("The same as a table").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    table = page.locator("#annotators-table")
    table.get_by_role("button", name="Annotator").tap()
    table.get_by_role("button", name="Annotator").tap()
    assert column(table, 1) == ["reviewer", "ben", "anna"]


def test_surplus_judgments_stand_on_the_counted_ones(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    first = Judgment.objects.order_by("pk").first()
    judge(first.comparison, cast.researcher, (1, 2), counted=False)
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/progress/")
    legend = page.locator("#chart-judgments .u-legend")
    expect(legend).to_contain_text("surplus")
    expect(legend).to_contain_text("counted")


def test_an_empty_page_draws_nothing_and_breaks_nothing(live_server: object, open_page: OpenPage) -> None:
    assemble()
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/progress/")
    expect(page.get_by_role("heading", name="No judgments yet")).to_be_visible()
    assert page.locator("canvas").count() == 0
