"""An annotator signs in with a real browser and ranks: by keyboard, by buttons and by dragging."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from annotation.models import Assignment, Completion, Contestant, Judgment
from tests.cast import PASSWORD, Cast, assemble, open_ranking

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

OpenPage = Callable[..., Page]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def sign_in(page: Page, site: str, username: str = "anna") -> None:
    page.goto(f"{site}/p/tea/annotate/")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site}/p/tea/annotate/")


def shown(page: Page) -> str:
    """Id of the comparison on the board, once there is one."""
    board = page.locator("#board[aria-busy=false]")
    expect(board).to_be_visible()
    return board.get_attribute("data-assignment") or ""


def next_after(page: Page, assignment: str) -> str:
    """Id of the comparison that follows."""
    expect(page.locator("#board")).not_to_have_attribute("data-assignment", assignment)
    return shown(page)


def card(page: Page, position: int) -> object:
    return page.get_by_role("article", name=f"Completion {position}", exact=True)


def ranks_of(assignment: str) -> list[int]:
    """What was recorded, in the order in which this annotator saw the completions."""
    judgment = Judgment.objects.get(assignment=assignment)
    ranks = dict(judgment.ranking.values_list("completion_id", "rank"))
    return [ranks[completion] for completion in judgment.assignment.shown_order]


def keep_steps(page: Page) -> None:
    expect(page.locator("#kept")).to_have_text("Your steps are kept.")


def test_an_annotator_ranks_by_keyboard_by_buttons_and_by_dragging(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=3, completions=4)
    page = open_page(viewport={"width": 1440, "height": 1000})
    sign_in(page, live_server.url)
    send = page.get_by_role("button", name="Send Enter")

    by_keyboard = shown(page)
    expect(send).to_be_disabled()
    page.keyboard.press("Enter")  # an untouched order is no answer
    for key in "3=14":
        page.keyboard.press(key)
    expect(send).to_be_disabled()
    page.keyboard.press("2")
    expect(page.locator("#state")).to_have_text("1 = 3 > 4 > 2")
    expect(page.locator("#live")).to_contain_text("Completion 2 is 3rd")
    page.keyboard.press("Enter")

    by_buttons = next_after(page, by_keyboard)
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

    expect(page.get_by_role("heading", name="All done for now")).to_be_visible()
    assert ranks_of(by_keyboard) == [1, 3, 1, 2]
    assert ranks_of(by_buttons) == [2, 1, 3, 3]
    assert ranks_of(by_dragging) == [2, 1, 4, 3]
    judgments = Judgment.objects.filter(annotator=cast.anna, source=Judgment.Source.PERSON)
    assert judgments.count() == 3
    assert all(judgment.is_counted for judgment in judgments)


def drag_to_the_end(page: Page, position: int) -> None:
    """Drag an entry from the unplaced ones below the last ranked one."""
    source = page.locator(f"#unplaced [data-position='{position}']").bounding_box()
    ranked = page.locator("#order li").count()
    page.mouse.move(source["x"] + 60, source["y"] + source["height"] / 2)
    page.mouse.down()
    target = page.locator("#order").bounding_box()
    page.mouse.move(target["x"] + 80, target["y"] + target["height"] - 6, steps=12)
    page.mouse.move(target["x"] + 80, target["y"] + target["height"] - 4, steps=3)
    page.mouse.up()
    expect(page.locator("#order li")).to_have_count(ranked + 1)


def test_of_two_completions_one_key_says_which_is_better(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=3, completions=2)
    page = open_page()
    sign_in(page, live_server.url)

    first = shown(page)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    second = next_after(page, first)
    page.keyboard.press("=")
    page.keyboard.press("Enter")
    third = next_after(page, second)
    card(page, 1).get_by_role("button", name="1 is better").click()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="All done for now")).to_be_visible()

    assert [ranks_of(first), ranks_of(second), ranks_of(third)] == [[2, 1], [1, 1], [1, 2]]


def test_all_bad_cannot_judge_and_skip_are_recorded_with_their_reasons(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=3, completions=3)
    page = open_page()
    sign_in(page, live_server.url)

    all_bad = shown(page)
    page.keyboard.press("a")
    page.get_by_role("button", name="Send “all bad”").press("Enter")

    cannot = next_after(page, all_bad)
    page.get_by_role("button", name="Cannot judge").click()
    page.get_by_role("button", name="Send “cannot judge”").click()
    expect(page.get_by_text("Say in a few words why.")).to_be_visible()
    page.get_by_role("textbox", name="Reason").fill("It is about chess.")
    page.get_by_role("button", name="Send “cannot judge”").click()

    skipped = next_after(page, cannot)
    page.keyboard.press("s")
    page.get_by_role("button", name="Skip it").click()
    expect(page.get_by_role("heading", name="All done for now")).to_be_visible()

    assert Judgment.objects.get(assignment=all_bad).outcome == Judgment.Outcome.ALL_BAD
    judgment = Judgment.objects.get(assignment=cannot)
    assert (judgment.outcome, judgment.reason) == (Judgment.Outcome.CANNOT_JUDGE, "It is about chess.")
    assert Assignment.objects.get(pk=skipped).state == Assignment.State.SKIPPED
    assert not Judgment.objects.filter(assignment=skipped).exists()


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
    page.keyboard.press("4")
    page.keyboard.press("Shift+Digit2")
    keep_steps(page)
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
    expect(page.get_by_text("Your ranking is kept here")).to_be_visible()
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
    keep_steps(page)
    page.wait_for_load_state("networkidle")

    said = "\n".join([page.content(), *answers]).lower()
    assert len(answers) >= 2
    assert "contestant" not in said
    board = Assignment.objects.filter(annotator=cast.anna).first()
    keys = set(re.findall(r'"(\w+)":', answers[0]))
    assert keys <= {
        "assignment", "round", "name", "rehearsal", "prompt", "messages", "role", "html", "text",
        "completions", "position", "lease_until", "draft", "progress", "done_by_me", "done_today", "remaining",
    }  # fmt: skip
    for completion in Completion.objects.filter(pk__in=board.shown_order):
        assert completion.contestant.digest not in said
    assert round.contestants.count() == 2
