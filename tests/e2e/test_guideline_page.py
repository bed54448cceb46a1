"""Writing the guideline in a browser: the preview follows, as every reader will see it."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotation.models import Guideline
from tests.cast import PASSWORD, Cast, assemble

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

OpenPage = Callable[..., Page]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def sign_in(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Username").fill("researcher")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(address)


def test_the_preview_follows_what_is_typed_and_shows_markup_as_text(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    page = open_page()
    sign_in(page, f"{live_server.url}/p/tea/guideline/edit/")
    text, preview = page.get_by_label("Text", exact=True), page.locator("#preview")
    expect(preview).to_contain_text("Put the completion you would rather be given first")
    text.fill("# Kindness\n\nBe **kind**. <img src=x onerror=alert(1)>")
    expect(preview.get_by_role("heading", name="Kindness")).to_be_visible()
    expect(preview.locator("strong")).to_have_text("kind")
    expect(preview).to_contain_text("<img src=x")
    assert preview.locator("img").count() == 0

    text.fill("x" * 100_001)
    expect(preview).to_contain_text("too long to preview")
    text.fill("")
    expect(preview).to_contain_text("Nothing written yet")
    text.fill("Be kind.")
    page.get_by_role("button", name="Publish").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Version 2 is published")
    assert Guideline.objects.get(version=2).text == "Be kind.\n"


def test_what_is_typed_before_the_page_has_loaded_is_previewed(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    page = open_page()
    sign_in(page, f"{live_server.url}/p/tea/guideline/")
    held = []
    page.route("**/preview.js", lambda route: held.append(route))
    with page.expect_request("**/preview.js"):
        page.goto(f"{live_server.url}/p/tea/guideline/edit/", wait_until="commit")
    page.get_by_label("Text", exact=True).fill("Be kind.")
    held[0].continue_()
    expect(page.locator("#preview")).to_have_text("Be kind.")


def test_a_lost_connection_is_told_and_the_text_stays(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    page = open_page()
    sign_in(page, f"{live_server.url}/p/tea/guideline/edit/")
    page.route("**/preview", lambda route: route.abort())
    page.get_by_label("Text", exact=True).fill("Be kind.")
    expect(page.locator("#preview")).to_contain_text("Your text is not lost")
    expect(page.get_by_label("Text", exact=True)).to_have_value("Be kind.")
    page.unroute("**/preview")
    page.get_by_label("Text", exact=True).fill("Be brief.")
    expect(page.locator("#preview")).to_have_text("Be brief.")
