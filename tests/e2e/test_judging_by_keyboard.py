"""Every way of judging, by keyboard alone."""

import uuid

import pytest
from playwright.sync_api import Page, expect

from annotation.models import Assignment, Comparison, Completion, Judgment, Prompt, Report, Round
from annotation.services.claims import expire_leases
from annotation.services.comparisons import add_comparisons
from tests.cast import Cast, add_prompts, assemble, open_ranking
from tests.e2e.annotating import (
    DESKTOP,
    OpenPage,
    all_done,
    card,
    newest,
    next_after,
    press,
    ranks_of,
    said_of,
    shown,
    sign_in,
    steps_are_kept,
)

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page(**DESKTOP)


def open_demonstrations(cast: Cast, count: int = 1) -> Round:
    """A round in which annotators write the answers."""
    prompts = add_prompts(cast, count)
    round = Round.objects.create(
        project=cast.project,
        number=cast.project.rounds.count() + 1,
        name="Demonstrations",
        kind=Round.Kind.DEMONSTRATION,
        status=Round.Status.RANKING,
        overlap=1,
    )
    comparisons = [
        Comparison(round=round, prompt=prompt, ordinal=number, kind=Comparison.Kind.DEMONSTRATION)
        for number, prompt in enumerate(prompts, 1)
    ]
    add_comparisons(round=round, comparisons=comparisons, groups=[[] for _ in comparisons])
    return round


def test_a_pair_takes_one_keystroke_and_enter(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=7, completions=2)
    sign_in(page, live_server.url)
    meant = {
        "1": ([1, 2], 3, "A is significantly better"),
        "2": ([1, 2], 2, "A is better"),
        "3": ([1, 2], 1, "A is slightly better"),
        "4": ([1, 1], None, "About the same"),
        "5": ([2, 1], 1, "B is slightly better"),
        "6": ([2, 1], 2, "B is better"),
        "7": ([2, 1], 3, "B is significantly better"),
    }
    assignment = shown(page)
    recorded = []
    for number, (key, (_, _, words)) in enumerate(meant.items(), 1):
        page.keyboard.press(key)
        expect(page.locator("#state")).to_have_text(f"{words}.")
        expect(page.locator("#live")).to_have_text(words)
        page.keyboard.press("Enter")
        recorded.append(assignment)
        if number < len(meant):
            assignment = next_after(page, assignment)
    all_done(page)
    assert [(ranks_of(one), newest(one).strength) for one in recorded] == [
        (ranks, strength) for ranks, strength, _ in meant.values()
    ]


def test_arrows_go_along_the_scale_and_a_shorter_scale_has_fewer_keys(
    cast: Cast, live_server: object, page: Page
) -> None:
    cast.project.strength_levels = 1
    cast.project.save()
    open_ranking(cast, comparisons=1, completions=2)
    sign_in(page, live_server.url)
    assignment = shown(page)
    expect(page.locator("#scale button")).to_have_count(3)
    page.keyboard.press("4")  # not on this scale
    expect(page.locator("#send")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#state")).to_have_text("A is better.")
    press(page, "ArrowRight ArrowRight ArrowRight")
    expect(page.locator("#state")).to_have_text("B is better.")
    page.keyboard.press("Enter")
    all_done(page)
    assert (ranks_of(assignment), newest(assignment).strength) == ([2, 1], None)


def test_four_are_ranked_with_five_keystrokes_whatever_the_ties(
    cast: Cast, live_server: object, page: Page
) -> None:
    open_ranking(cast, comparisons=3, completions=4)
    sign_in(page, live_server.url)
    first = shown(page)
    page.keyboard.press("Enter")  # an untouched order is no answer
    expect(card(page, 1)).to_have_class("completion current")
    press(page, "2113")
    expect(page.locator("#state")).to_have_text("2 = 3 > 1 > 4")
    expect(page.locator("#live")).to_contain_text("Completion 4 is 3rd")
    page.keyboard.press("Enter")
    second = next_after(page, first)
    press(page, "1144")  # gaps close up
    page.keyboard.press("Enter")
    third = next_after(page, second)
    press(page, "1=")  # the same place as the one before
    press(page, "34")
    page.keyboard.press("Enter")
    all_done(page)
    assert [ranks_of(one) for one in (first, second, third)] == [[2, 1, 1, 3], [1, 1, 2, 2], [1, 1, 2, 3]]


def test_arrows_mark_and_move_and_each_step_can_be_undone(
    cast: Cast, live_server: object, page: Page
) -> None:
    open_ranking(cast, comparisons=1, completions=8)
    sign_in(page, live_server.url)
    assignment = shown(page)
    press(page, "12345678")
    state = page.locator("#state")
    expect(state).to_have_text("1 > 2 > 3 > 4 > 5 > 6 > 7 > 8")
    page.keyboard.press("Shift+Digit3")
    expect(card(page, 3)).to_be_focused()
    press(page, "ArrowUp ArrowUp")
    expect(state).to_have_text("3 > 1 > 2 > 4 > 5 > 6 > 7 > 8")
    press(page, "ArrowRight ArrowDown")
    expect(state).to_have_text("3 > 1 > 2 > 5 > 4 > 6 > 7 > 8")
    press(page, "uu")
    expect(state).to_have_text("1 > 3 > 2 > 4 > 5 > 6 > 7 > 8")
    page.keyboard.press("Enter")
    all_done(page)
    assert ranks_of(assignment) == [1, 3, 2, 4, 5, 6, 7, 8]


def test_flags_aspects_comment_and_a_better_answer_go_with_the_judgment(
    cast: Cast, live_server: object, page: Page
) -> None:
    cast.project.aspects = ["helpfulness", "tone"]
    cast.project.save()
    open_ranking(cast, comparisons=1, completions=3)
    sign_in(page, live_server.url)
    assignment = shown(page)
    press(page, "n2")  # the second flag of the first completion
    press(page, "c")
    page.keyboard.type("Too hot: 100 °C burns it")
    page.keyboard.press("Escape")
    expect(card(page, 1)).to_contain_text("unsafe, comment")
    page.keyboard.press("Shift+Digit2")
    press(page, "nw")
    page.keyboard.press("Control+End")
    page.keyboard.type(" Better this way.")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    card(page, 2).get_by_role("group", name="tone").get_by_role("button", name="4").press("Enter")
    page.keyboard.press("Escape")
    steps_are_kept(page)
    press(page, "2")  # completion 2 is marked: its place
    press(page, "13")
    page.keyboard.press("Enter")
    all_done(page)

    assert ranks_of(assignment) == [1, 2, 3]
    one, two, three = (said_of(assignment, position) for position in (1, 2, 3))
    assert (one.flags, one.comment) == (["unsafe"], "Too hot: 100 °C burns it")
    assert (two.flags, two.aspects) == ([], {"tone": 4})
    assert (three.flags, three.aspects, three.comment) == ([], {}, "")
    better = Completion.objects.get(edited_from=two.completion)
    assert better.text == f"{two.completion.text} Better this way."
    assert (better.review, better.judgment_id) == ("waiting", newest(assignment).pk)


def test_both_bad_keeps_its_flags_and_is_no_tie(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=1, completions=2)
    sign_in(page, live_server.url)
    assignment = shown(page)
    press(page, "n1")
    press(page, "n3")  # on to the second completion
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="Both bad")).to_be_visible()
    page.keyboard.press("Enter")
    all_done(page)
    judgment = newest(assignment)
    assert (judgment.outcome, judgment.strength) == (Judgment.Outcome.ALL_BAD, None)
    assert [(said_of(assignment, p).rank, said_of(assignment, p).flags) for p in (1, 2)] == [
        (None, ["factually wrong"]),
        (None, ["off-topic"]),
    ]


def test_cannot_judge_skip_and_report_take_their_reason_in_one_key(
    cast: Cast, live_server: object, page: Page
) -> None:
    open_ranking(cast, comparisons=3, completions=3)
    sign_in(page, live_server.url)
    cannot = shown(page)
    press(page, "c1")
    skipped = next_after(page, cannot)
    press(page, "s4")
    reported = next_after(page, skipped)
    press(page, "r2")
    all_done(page)
    judgment = newest(cannot)
    assert (judgment.outcome, judgment.reason) == (Judgment.Outcome.CANNOT_JUDGE, "I don't know the subject.")
    left = Assignment.objects.get(pk=skipped)
    assert (left.state, left.reason) == (Assignment.State.SKIPPED, "It is too long.")
    assert Report.objects.get(assignment=reported).category == Report.Category.PERSONAL
    assert Assignment.objects.get(pk=reported).state == Assignment.State.SKIPPED


def test_an_ideal_answer_is_written_with_a_live_preview(cast: Cast, live_server: object, page: Page) -> None:
    open_demonstrations(cast)
    sign_in(page, live_server.url)
    assignment = shown(page)
    expect(page.get_by_role("heading", name="Write the ideal answer")).to_be_visible()
    expect(page.locator("#send")).to_be_disabled()
    page.get_by_label("The answer you would want to be given").focus()
    page.keyboard.type("Pour it at **80 °C**.")
    expect(page.locator("#answer-preview strong")).to_have_text("80 °C")
    steps_are_kept(page)
    page.reload()
    assert shown(page) == assignment
    expect(page.get_by_label("The answer you would want to be given")).to_have_value("Pour it at **80 °C**.")
    page.get_by_label("The answer you would want to be given").press("Control+Enter")
    all_done(page)
    written = Completion.objects.get(judgment=newest(assignment))
    assert (written.text, written.edited_from, written.review) == ("Pour it at **80 °C**.", None, "waiting")
    assert newest(assignment).outcome == Judgment.Outcome.DEMONSTRATED


def test_what_was_sent_last_is_revised_and_both_are_kept(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=3, completions=3)
    sign_in(page, live_server.url)
    first = shown(page)
    press(page, "123")
    page.keyboard.press("Enter")
    second = next_after(page, first)
    page.keyboard.press("2")  # begun on the second
    page.keyboard.press("z")
    assert next_after(page, second) == first
    expect(page.get_by_text("You are revising a judgment you have sent")).to_be_visible()
    expect(page.locator("#state")).to_have_text("1 > 2 > 3")
    page.keyboard.press("Shift+Digit3")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert next_after(page, first) == second
    expect(page.locator("#state")).to_have_text("2 more to place.")  # as it was left
    assert ranks_of(first) == [1, 3, 2]
    old, new = Judgment.objects.filter(assignment=first).order_by("pk")
    assert (new.supersedes, new.slot) == (old, old.slot)

    page.keyboard.press("z")
    next_after(page, second)
    page.keyboard.press("Escape")
    assert next_after(page, first) == second
    assert Judgment.objects.filter(assignment=first).count() == 2


def test_a_revision_in_the_address_opens_and_one_too_late_says_so(
    cast: Cast, live_server: object, page: Page
) -> None:
    open_ranking(cast, comparisons=2, completions=2)
    sign_in(page, live_server.url)
    first = shown(page)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    next_after(page, first)
    page.goto(f"{live_server.url}/p/tea/annotate/?revise={first}")
    assert shown(page) == first
    cast.project.revise_minutes = 0
    cast.project.save()
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    expect(page.get_by_text("that is over")).to_be_visible()
    page.goto(f"{live_server.url}/p/tea/annotate/?revise={first}")
    assert shown(page) != first
    expect(page.get_by_text("The time to revise that judgment is over")).to_be_visible()
    page.goto(f"{live_server.url}/p/tea/annotate/?revise={uuid.uuid4()}")
    expect(page.get_by_text("There is no such assignment")).to_be_visible()


def test_differences_word_by_word_are_one_key_away(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=1, completions=3)
    sign_in(page, live_server.url)
    shown(page)
    page.keyboard.press("d")
    dialog = page.get_by_role("dialog", name="Differences, word by word")
    expect(dialog.locator("del").first).to_be_visible()
    left = dialog.locator("#differences-left-text").inner_text()
    page.keyboard.press("3")
    expect(dialog.locator("#differences-right")).to_have_value("3")
    assert dialog.locator("#differences-left-text").inner_text() != left
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_sensitive_prompts_stay_blurred_until_asked_for(cast: Cast, live_server: object, page: Page) -> None:
    open_ranking(cast, comparisons=1, completions=2)
    Prompt.objects.update(tags=["violence"])
    sign_in(page, live_server.url)
    shown(page)
    expect(page.get_by_text("This may disturb: violence.")).to_be_visible()
    text = card(page, "A").locator(".prose")
    assert "blur" in text.evaluate("element => getComputedStyle(element).filter")
    page.keyboard.press("v")
    expect(page.get_by_text("This may disturb")).to_be_hidden()
    assert text.evaluate("element => getComputedStyle(element).filter") == "none"


def test_the_guideline_tells_what_changed_since_it_was_read_last(
    cast: Cast, live_server: object, page: Page
) -> None:
    open_ranking(cast, comparisons=2, completions=2)
    sign_in(page, live_server.url)
    first = shown(page)
    page.keyboard.press("g")
    dialog = page.get_by_role("dialog", name="Guideline")
    expect(dialog.get_by_text("Put the completion you would rather")).to_be_visible()
    page.keyboard.press("Escape")
    cast.project.guidelines.create(
        version=2, text=cast.project.guidelines.get().text.replace("rather", "much rather")
    )
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    next_after(page, first)  # fetched ahead, under the old one
    page.reload()
    expect(page.locator("#guideline-new")).to_be_visible()
    page.keyboard.press("g")
    expect(dialog.locator("ins")).to_contain_text("much")
    page.keyboard.press("Escape")
    expect(page.locator("#guideline-new")).to_be_hidden()


def test_what_was_begun_at_one_desk_goes_on_at_another(
    cast: Cast, live_server: object, page: Page, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=2, completions=4)
    sign_in(page, live_server.url)
    assignment = shown(page)
    press(page, "21")
    steps_are_kept(page)

    other = open_page(**DESKTOP)
    sign_in(other, live_server.url)
    assert shown(other) == assignment
    expect(other.get_by_text("Restored from where you left it.")).to_be_visible()
    expect(other.locator("#state")).to_have_text("2 more to place.")
    press(other, "4 3 Enter")
    next_after(other, assignment)
    assert ranks_of(assignment) == [2, 1, 4, 3]


def test_a_lost_reservation_is_had_again_without_a_pointer(
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
    again = page.get_by_role("button", name="Reserve it again")
    expect(again).to_be_visible()
    for _ in range(60):  # Tab goes round the page, so it comes by
        if again.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(again).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your reservation has run out.")).to_have_count(0)
    assert Assignment.objects.get(pk=lost).state == Assignment.State.OPEN
    press(page, "1 Enter")
    all_done(page)
    assert newest(lost).is_counted
