"""The ranking page by buttons and by dragging, and what it does when answers get lost, twice or late."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from annotation.models import Assignment, Completion, Contestant, Judgment
from tests.cast import Cast, assemble, open_ranking
from tests.e2e.annotating import (
    OpenPage,
    all_done,
    card,
    next_after,
    ranks_of,
    shown,
    sign_in,
    steps_are_kept,
)

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def test_an_annotator_ranks_by_buttons_and_by_dragging(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=2, completions=4)
    page = open_page(viewport={"width": 1440, "height": 1000})
    sign_in(page, live_server.url)
    send = page.get_by_role("button", name="Send Enter")

    by_buttons = shown(page)
    expect(send).to_be_disabled()
    for position, place in ((1, "4th"), (2, "1st"), (3, "2nd"), (4, "2nd")):
        card(page, position).get_by_role("button", name=place).click()
    expect(page.locator("#state")).to_have_text("2 > 3 = 4 > 1")
    card(page, 1).get_by_role("button", name="One place up").click()
    expect(page.locator("#state")).to_have_text("2 > 1 > 3 = 4")
    send.click()

    by_dragging = next_after(page, by_buttons)
    for position in (2, 1, 4, 3):
        drag_to_the_end(page, position)
    expect(page.locator("#state")).to_have_text("2 > 1 > 4 > 3")
    send.click()

    all_done(page)
    assert ranks_of(by_buttons) == [2, 1, 3, 3]
    assert ranks_of(by_dragging) == [2, 1, 4, 3]
    judgments = Judgment.objects.filter(annotator=cast.anna, source=Judgment.Source.PERSON)
    assert judgments.count() == 2
    assert all(judgment.is_counted for judgment in judgments)


def drag_to_the_end(page: Page, position: int) -> None:
    """Drag an entry from the unplaced ones below the last ranked one."""
    source = page.locator(f"#unplaced [data-position='{position}']").bounding_box()
    ranked = page.locator("#order li").count()
    page.mouse.move(source["x"] + 60, source["y"] + source["height"] / 2)
    page.mouse.down()
    last = page.locator("#order > li:last-child")
    # SortableJS looks every 50 ms, only at a pointer that moves, and not while rows still slide.
    for step in range(100):
        target = page.locator("#order").bounding_box()
        page.mouse.move(target["x"] + 80 + step % 2, target["y"] + target["height"] - 4, steps=4)
        page.wait_for_timeout(60)
        if last.count() and last.get_attribute("data-position") == str(position):
            break
    page.mouse.up()
    expect(page.locator("#order li")).to_have_count(ranked + 1)


def test_steps_can_be_undone_before_sending(cast: Cast, live_server: object, open_page: OpenPage) -> None:
    open_ranking(cast, comparisons=1, completions=3)
    page = open_page()
    sign_in(page, live_server.url)
    state = page.locator("#state")

    shown(page)
    for key in "123":
        page.keyboard.press(key)
    expect(state).to_have_text("1 > 2 > 3")
    page.keyboard.press("Backspace")
    expect(state).to_have_text("1 more to place.")
    page.keyboard.press("u")
    page.get_by_role("button", name=re.compile("^Undo")).click()
    expect(state).to_have_text("Place all 3 to send.")
    assert not Judgment.objects.exists()


def test_a_reload_brings_back_what_was_done(cast: Cast, live_server: object, open_page: OpenPage) -> None:
    open_ranking(cast, comparisons=3, completions=4)
    page = open_page()
    sign_in(page, live_server.url)

    assignment = shown(page)
    page.keyboard.press("Shift+Digit4")
    page.keyboard.press("1")
    page.keyboard.press("Shift+Digit2")
    page.keyboard.press("1")
    steps_are_kept(page)
    page.reload()
    assert shown(page) == assignment
    expect(page.locator("#state")).to_have_text("2 more to place.")
    expect(card(page, 2).get_by_role("button", name="1st")).to_have_attribute("aria-pressed", "true")
    expect(card(page, 4).get_by_role("button", name="1st")).to_have_attribute("aria-pressed", "true")


def test_sending_twice_makes_one_judgment(cast: Cast, live_server: object, open_page: OpenPage) -> None:
    open_ranking(cast, comparisons=2, completions=2)
    page = open_page()
    sign_in(page, live_server.url)

    first = shown(page)
    page.keyboard.press("1")
    page.locator("#send").dblclick()
    next_after(page, first)
    assert Judgment.objects.count() == 1


def test_an_answer_that_got_lost_is_sent_again_under_the_same_key(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=2, completions=2)
    page = open_page()
    sign_in(page, live_server.url)
    sent: list[str] = []

    def lose_the_first_answer(route: Route) -> None:
        sent.append(route.request.post_data or "")
        if len(sent) == 1:
            route.fetch()  # the server has taken it ...
            route.abort()  # ... and its answer never comes
        else:
            route.continue_()

    page.route("**/submit", lose_the_first_answer)
    first = shown(page)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your judgment is kept here")).to_be_visible()
    page.get_by_role("button", name="Send now").click()
    next_after(page, first)

    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert Judgment.objects.count() == 1


def test_leaving_gives_back_what_was_fetched_ahead(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=2, completions=2)
    page = open_page()
    with page.expect_response(lambda answer: "prefetch" in (answer.request.post_data or "")):
        sign_in(page, live_server.url)
    held = shown(page)
    mine = Assignment.objects.filter(annotator=cast.anna)
    assert mine.filter(state=Assignment.State.OPEN).count() == 2

    page.goto(f"{live_server.url}/p/tea/")
    for _ in range(50):  # the request outlives the page that sent it, and nobody hears its answer
        still_open = [str(row.pk) for row in mine.filter(state=Assignment.State.OPEN)]
        if len(still_open) < 2:
            break
        page.wait_for_timeout(100)
    assert still_open == [held]


def test_nothing_an_annotator_gets_tells_the_contestants_apart(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    round = open_ranking(cast, comparisons=2, completions=4)
    Contestant.objects.filter(name="plain").update(name="contestant-of-the-north")
    Contestant.objects.filter(name="polite").update(name="contestant-of-the-south")
    page = open_page()
    answers: list[str] = []
    page.on("response", lambda answer: answers.append(answer.text()) if "/api/" in answer.url else None)
    sign_in(page, live_server.url)
    shown(page)
    for key in "1234":
        page.keyboard.press(key)
    steps_are_kept(page)
    page.wait_for_load_state("networkidle")

    said = "\n".join([page.content(), *answers]).lower()
    assert len(answers) >= 2
    assert "contestant" not in said
    board = Assignment.objects.filter(annotator=cast.anna).first()
    keys = set(re.findall(r'"(\w+)":', answers[0]))
    assert keys <= {
        "assignment", "round", "name", "rehearsal", "prompt", "messages", "role", "html", "text",
        "completions", "position", "lease_until", "draft", "kind", "sensitive", "asked", "strength_levels", "flags",
        "aspects", "guideline", "judgment", "revisable_until", "done_by_me", "done_today", "left", "rounds", "filled",
        "places", "lease_seconds",
    }  # fmt: skip
    for completion in Completion.objects.filter(pk__in=board.shown_order):
        assert completion.contestant.digest not in said
    assert round.contestants.count() == 2
