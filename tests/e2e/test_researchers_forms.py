"""What researchers choose in a form, and the API's description, in a real browser: no script is needed for either."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.cast import Cast, add_prompts, assemble
from tests.e2e.test_live_pages import open_signed_in
from tests.training.stage import add_base
from training.services.checkpoints import register_policy

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

OpenPage = Callable[..., Page]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def test_the_launch_form_shows_what_goes_with_the_chosen_kind(
    cast: Cast, live_server: object, open_page: OpenPage, settings, tmp_path
) -> None:
    settings.ARTIFACTS_URL = str(tmp_path / "artifacts")
    add_prompts(cast, 6)
    register_policy(checkpoint=add_base(cast, tmp_path / "base"))
    page = open_page(java_script_enabled=False)
    open_signed_in(page, f"{live_server.url}/p/tea/rounds/new/")
    expect(page.get_by_role("group", name="Contestants")).to_be_visible()
    expect(page.get_by_label("Answers per prompt")).to_be_hidden()

    for_rankings = ("Overlap", "Samples per contestant", "Reward model", "Rehearsal")
    for label in for_rankings:
        expect(page.get_by_label(label, exact=True)).to_be_visible()
    page.get_by_label("Write demonstrations").check()
    for label in for_rankings:
        expect(page.get_by_label(label, exact=True)).to_be_hidden()
    expect(page.get_by_role("group", name="Contestants")).to_be_hidden()
    page.get_by_label("Name").fill("Ideal answers")
    page.get_by_label("Answers per prompt").fill("2")
    page.get_by_role("button", name="Launch").click()
    expect(page).to_have_url(f"{live_server.url}/p/tea/rounds/1/")
    round = cast.project.rounds.get()
    assert (round.kind, round.overlap, round.training_plan) == ("demonstration", 2, [])


@pytest.mark.parametrize("width", [390, 1440])
def test_the_description_of_the_api_fits_and_opens_by_keyboard(
    cast: Cast, live_server: object, open_page: OpenPage, width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 900}, java_script_enabled=False)
    open_signed_in(page, f"{live_server.url}/api/docs")
    page.locator("summary", has_text="Add one prompt").focus()
    page.keyboard.press("Enter")
    example = page.get_by_label("Example of POST /api/v1/projects/{slug}/prompts", exact=True)
    expect(example).to_contain_text(f"curl -X POST '{live_server.url}/api/v1/projects/SLUG/prompts'")
    sizes = page.locator("html").bounding_box()
    assert sizes["width"] <= width
    assert all(box["x"] + box["width"] <= width for box in boxes(page))


def boxes(page: Page) -> list[dict[str, float]]:
    found = [card.bounding_box() for card in page.locator(".card, .curl").all()]
    return [box for box in found if box is not None]
