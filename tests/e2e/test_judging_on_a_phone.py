"""Every way of judging again, by touch alone on a phone-sized screen."""

import pytest
from playwright.sync_api import Locator, Page, expect

from annotation.models import Assignment, Completion, Judgment, Report
from annotation.services.claims import expire_leases
from tests.cast import Cast, assemble, open_ranking
from tests.e2e.annotating import (
    PHONE,
    OpenPage,
    all_done,
    card,
    newest,
    next_after,
    ranks_of,
    said_of,
    shown,
    sign_in,
    steps_are_kept,
)
from tests.e2e.test_judging_by_keyboard import open_demonstrations

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

# Of buttons that are used for each comparison; WCAG 2.2 asks for 24.
LEAST_TARGET = 36


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page(**PHONE)


def tap(target: Locator) -> None:
    target.scroll_into_view_if_needed()
    target.tap()


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def send(page: Page) -> None:
    tap(page.locator("#send"))


def fits(page: Page) -> None:
    """Nothing is wider than the screen, and what is tapped all day is large enough."""
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for target in page.locator("#scale button, .rank-buttons button, #send, #undo").all():
        box = target.bounding_box() if target.is_visible() else None
        if box:
            assert min(box["width"], box["height"]) >= LEAST_TARGET, (target.inner_text(), box)


def test_a_pair(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=2, completions=2)
    sign_in(page, live_server.url)
    first = shown(page)
    fits(page)
    tap(button(page, "B is slightly better"))
    expect(page.locator("#state")).to_have_text("B is slightly better.")
    send(page)
    second = next_after(page, first)
    tap(page.get_by_role("button", name="Both bad"))
    tap(page.get_by_role("button", name="Send “Both bad”"))
    all_done(page)
    assert (ranks_of(first), newest(first).strength) == ([2, 1], 1)
    assert newest(second).outcome == Judgment.Outcome.ALL_BAD


@pytest.mark.parametrize("count", [3, 8])
def test_three_and_eight(cast: Cast, live_server: object, page: Page, count: int) -> None:
    open_ranking(cast, comparisons=1, completions=count)
    sign_in(page, live_server.url)
    assignment = shown(page)
    fits(page)
    wanted = [2, 1, 1, 3, 4, 5, 6, 7][:count]
    places = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th"]
    for position, rank in enumerate(wanted, 1):
        tap(card(page, position).get_by_role("button", name=places[rank - 1], exact=True))
    tap(card(page, 1).get_by_role("button", name="One place up: completion 1"))
    page.locator("#undo").tap()
    send(page)
    all_done(page)
    assert ranks_of(assignment) == wanted


def test_notes_and_a_better_answer(cast: Cast, live_server: object, page: Page) -> None:
    cast.project.aspects = ["tone"]
    cast.project.save()
    open_ranking(cast, comparisons=1, completions=2)
    sign_in(page, live_server.url)
    assignment = shown(page)
    tap(page.get_by_role("button", name="Notes on completion B"))
    tap(card(page, "B").get_by_role("button", name="unsafe"))
    tap(card(page, "B").get_by_role("group", name="tone").get_by_role("button", name="5"))
    tap(card(page, "B").get_by_role("button", name="Write a better one"))
    page.get_by_label("A better answer than completion B").fill("Use water at 80 °C.")
    tap(card(page, "B").get_by_role("button", name="Done"))
    fits(page)
    tap(button(page, "A is better"))
    send(page)
    all_done(page)
    said = said_of(assignment, 2)
    assert (said.flags, said.aspects) == (["unsafe"], {"tone": 5})
    assert Completion.objects.get(edited_from=said.completion).text == "Use water at 80 °C."


def test_a_demonstration(cast: Cast, live_server: object, page: Page) -> None:
    open_demonstrations(cast)
    sign_in(page, live_server.url)
    assignment = shown(page)
    page.get_by_label("The answer you would want to be given").fill("Three minutes.")
    expect(page.locator("#answer-preview")).to_have_text("Three minutes.")
    fits(page)
    send(page)
    all_done(page)
    assert Completion.objects.get(judgment=newest(assignment)).text == "Three minutes."


def test_skip_report_and_revise(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=4, completions=2)
    sign_in(page, live_server.url)
    skipped = shown(page)
    tap(page.get_by_role("button", name="Skip"))
    tap(page.get_by_role("button", name="It is too long"))
    reported = next_after(page, skipped)
    tap(page.get_by_role("button", name="Report"))
    tap(page.get_by_role("button", name="Report it"))
    expect(page.get_by_text("Say in a few words what is wrong.")).to_be_visible()
    page.get_by_label("Or something else").fill("Two prompts in one.")
    tap(page.get_by_role("button", name="Report it"))
    sent = next_after(page, reported)
    tap(button(page, "A is better"))
    send(page)
    after = next_after(page, sent)
    tap(page.get_by_role("button", name="Revise it"))
    assert next_after(page, after) == sent
    tap(button(page, "B is better"))
    send(page)
    assert next_after(page, sent) == after
    assert ranks_of(sent) == [2, 1]
    assert Assignment.objects.get(pk=skipped).reason == "It is too long."
    assert Report.objects.get(assignment=reported).text == "Two prompts in one."


def test_what_was_begun_on_a_phone_goes_on_at_a_desk(
    cast: Cast, live_server: object, page: Page, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=2, completions=4)
    sign_in(page, live_server.url)
    assignment = shown(page)
    tap(card(page, 3).get_by_role("button", name="1st", exact=True))
    tap(page.get_by_role("button", name="Notes on completion 3"))
    page.get_by_label("Comment on completion 3").fill("Brief.")
    steps_are_kept(page)

    desk = open_page()
    sign_in(desk, live_server.url)
    assert shown(desk) == assignment
    expect(desk.get_by_text("Restored from where you left it.")).to_be_visible()
    expect(desk.locator("#state")).to_have_text("3 more to place.")
    expect(card(desk, 3)).to_contain_text("comment")
    for key in "234":
        desk.keyboard.press(key)
    desk.keyboard.press("Enter")
    next_after(desk, assignment)
    assert ranks_of(assignment) == [2, 3, 1, 4]
    assert said_of(assignment, 3).comment == "Brief."


def test_a_lost_reservation_can_be_sent_and_a_new_one_is_had_again(
    cast: Cast, live_server: object, page: Page
) -> None:
    open_ranking(cast, comparisons=1, completions=2)
    page.clock.install()
    # What is fetched ahead would find the lease run out and give it back to us.
    with page.expect_response(lambda answer: "prefetch" in (answer.request.post_data or "")):
        sign_in(page, live_server.url)
    lost = shown(page)
    Assignment.objects.update(lease_until="2020-01-01T00:00Z")
    assert expire_leases() == 1
    page.clock.fast_forward("40:00")
    expect(page.get_by_text("Your reservation has run out.")).to_be_visible()
    tap(page.get_by_role("button", name="Reserve it again"))
    expect(page.get_by_text("Your reservation has run out.")).to_have_count(0)
    assert Assignment.objects.get(pk=lost).state == Assignment.State.OPEN
    tap(button(page, "A is better"))
    send(page)
    all_done(page)
    assert newest(lost).is_counted
