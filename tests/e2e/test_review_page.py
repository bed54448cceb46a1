"""The review page in a real browser, by keyboard alone."""

import uuid

import pytest

from annotation.models import Completion
from annotation.services.claims import claim_comparison
from annotation.services.judgments import submit_judgment
from annotation.submissions import Note, Submission
from tests.cast import PASSWORD, assemble, open_ranking

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]


def test_a_reviewer_works_through_the_queue_by_keyboard(open_page, live_server):
    cast = assemble()
    open_ranking(cast, comparisons=3)
    for number in range(3):
        assignment = claim_comparison(project=cast.project, annotator=cast.anna)
        note = Note(position=1, better=f"Better answer {number}.")
        submit_judgment(
            assignment=assignment, submission=Submission(uuid.uuid4(), "ranked", (1, 2, 3, 4), notes=[note])
        )
    page = open_page()
    page.goto(f"{live_server.url}/sign-in/?next=/p/tea/review/")
    page.fill("[name=username]", "reviewer")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{live_server.url}/p/tea/review/")

    page.keyboard.press("a")  # outside a card a key decides nothing
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    with page.expect_navigation():
        page.keyboard.press("a")
    page.keyboard.press("d")  # the next one is at hand: D asks for a note first
    page.keyboard.type("Leaves out the water.")
    with page.expect_navigation():
        page.keyboard.press("Control+Enter")
    page.get_by_text("Declined. No dataset takes it in").wait_for()
    page.keyboard.press("d")
    page.keyboard.type("ad")  # letters in a note are letters
    page.keyboard.press("Escape")
    with page.expect_navigation():
        page.keyboard.press("a")
    page.get_by_text("No answer waits").wait_for()
    found = Completion.objects.exclude(review="").order_by("pk").values_list("review", "review_note")
    assert list(found) == [("approved", ""), ("declined", "Leaves out the water."), ("approved", "ad")]
