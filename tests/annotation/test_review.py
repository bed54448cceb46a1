"""Reviewing what people wrote: who may, what a decision changes, and what a repeat or a late one does not."""

import uuid

import pytest
from django.test import Client

from annotation.models import Completion, Judgment, Membership
from annotation.selectors.review import waiting_for_review, waiting_in, written_answers
from annotation.services.claims import claim_comparison
from annotation.services.judgments import submit_judgment, withdraw_judgment
from annotation.services.review import approve_answer, decline_answer
from annotation.submissions import Note, Submission
from rankloop.accounts.models import User
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.cast import Cast, assemble, open_ranking
from tests.pages import text_of
from tests.written import demonstrate, revise

pytestmark = pytest.mark.django_db
PAGE = "/p/tea/review/"
API = "/api/v1/projects/tea"


@pytest.fixture
def cast() -> Cast:
    return assemble()


def write(cast: Cast, user: User, text: str) -> Completion:
    """The user ranks what comes next and writes the first completion anew."""
    assignment = claim_comparison(project=cast.project, annotator=user)
    submission = Submission(uuid.uuid4(), "ranked", [1, 2, 3, 4], notes=[Note(position=1, better=text)])
    judgment = submit_judgment(assignment=assignment, submission=submission)
    return judgment.written.get()


@pytest.fixture
def answer(cast: Cast) -> Completion:
    open_ranking(cast, comparisons=3)
    return write(cast, cast.anna, "Warm the pot first, then steep it for three minutes.")


def state_of(answer: Completion) -> tuple[str, str, User | None]:
    row = Completion.objects.get(pk=answer.pk)
    return row.review, row.review_note, row.reviewed_by


def events(cast: Cast) -> list[str]:
    return list(
        AuditEvent.objects.filter(action__startswith="answer ")
        .order_by("pk")
        .values_list("action", flat=True)
    )


# --- who ---


@pytest.mark.parametrize("who", ["anna", "stranger"])
def test_the_page_and_the_api_are_not_there_for_others(client: Client, cast: Cast, answer, who: str) -> None:
    client.force_login(getattr(cast, who))
    assert client.get(PAGE).status_code == 404
    assert client.post(PAGE, {"answer": answer.pk, "do": "approve", "seen": "waiting"}).status_code == 404
    assert client.get(f"{API}/answers").status_code == 404
    for act in ("approve", "decline"):
        sent = client.post(f"{API}/answers/{answer.pk}/{act}", {"note": "x"}, "application/json")
        assert sent.status_code == 404
    assert state_of(answer) == ("waiting", "", None)


@pytest.mark.parametrize("who", ["reviewer", "researcher", "admin"])
def test_reviewers_and_those_above_decide(client: Client, cast: Cast, answer, who: str) -> None:
    user = getattr(cast, who)
    client.force_login(user)
    sent = client.post(PAGE, {"answer": answer.pk, "do": "approve", "seen": "waiting", "note": ""})
    assert sent.url == PAGE
    assert state_of(answer) == ("approved", "", user)


def test_the_tab_with_its_count_is_for_reviewers(client: Client, cast: Cast, answer) -> None:
    client.force_login(cast.reviewer)
    assert "Review 1 waiting" in text_of(client.get("/p/tea/"))
    approve_answer(answer=answer, reviewer=cast.reviewer)
    page = text_of(client.get("/p/tea/"))
    assert "Review" in page
    assert "1 waiting" not in page
    client.force_login(cast.anna)
    assert "Review" not in text_of(client.get("/p/tea/"))


def test_an_author_does_not_review_their_own(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    own = write(cast, cast.reviewer, "Mine.")
    with pytest.raises(Refused, match="Leave it to another reviewer"):
        approve_answer(answer=own, reviewer=cast.reviewer)
    client.force_login(cast.reviewer)
    page = client.get(PAGE).content.decode()
    assert "somebody else reviews it" in page
    assert 'value="approve"' not in page
    refused = client.post(PAGE, {"answer": own.pk, "do": "approve", "seen": "waiting"})
    assert refused.status_code == 400
    assert "You wrote this answer yourself" in text_of(refused)
    assert state_of(own) == ("waiting", "", None)


def test_an_author_reviews_their_own_when_nobody_else_may(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    own = write(cast, cast.reviewer, "Mine.")
    others = Membership.objects.filter(role__in=["researcher", "admin"])
    User.objects.filter(pk=cast.admin.pk).update(is_active=False)  # somebody who can't sign in is nobody
    others.exclude(user=cast.admin).delete()
    client.force_login(cast.reviewer)
    assert 'value="approve"' in client.get(PAGE).content.decode()
    approve_answer(answer=own, reviewer=cast.reviewer)
    assert state_of(own)[0] == "approved"


def test_an_answer_of_another_project_is_not_there(client: Client, cast: Cast, answer) -> None:
    from annotation.services.members import open_project

    open_project(slug="coffee", name="Coffee", user=cast.stranger)
    client.force_login(cast.stranger)
    assert client.get("/p/coffee/review/").status_code == 200
    bodies = {"answer": answer.pk, "do": "approve", "seen": "waiting"}
    assert client.post("/p/coffee/review/", bodies).status_code == 404
    sent = client.post(f"/api/v1/projects/coffee/answers/{answer.pk}/approve", {}, "application/json")
    missing = client.post("/api/v1/projects/coffee/answers/999999/approve", {}, "application/json")
    assert sent.status_code == missing.status_code == 404
    assert sent.json() == missing.json()
    assert state_of(answer)[0] == "waiting"


# --- what a decision does ---


def test_a_decision_may_be_changed_and_each_change_is_recorded(cast: Cast, answer) -> None:
    approve_answer(answer=answer, reviewer=cast.reviewer)
    answer.refresh_from_db()
    decline_answer(answer=answer, reviewer=cast.researcher, note=" Too short. ")
    assert state_of(answer) == ("declined", "Too short.", cast.researcher)
    answer.refresh_from_db()
    approve_answer(answer=answer, reviewer=cast.reviewer)
    assert state_of(answer) == ("approved", "", cast.reviewer)
    assert events(cast) == ["answer approved", "answer declined", "answer approved"]
    details = AuditEvent.objects.get(action="answer declined").details
    assert details == {"before": "approved", "note": "Too short."}


def test_the_same_decision_again_changes_nothing(cast: Cast, answer) -> None:
    decline_answer(answer=answer, reviewer=cast.reviewer, note="No.")
    at = Completion.objects.get(pk=answer.pk).reviewed_at
    again = Completion.objects.get(pk=answer.pk)
    decline_answer(answer=again, reviewer=cast.reviewer, note="No.")
    assert Completion.objects.get(pk=answer.pk).reviewed_at == at
    assert events(cast) == ["answer declined"]


def test_of_two_reviewers_who_see_it_waiting_the_second_is_told(cast: Cast, answer) -> None:
    same = Completion.objects.get(pk=answer.pk)
    decline_answer(answer=answer, reviewer=cast.reviewer, note="No.")
    with pytest.raises(Conflict, match="meanwhile"):
        approve_answer(answer=same, reviewer=cast.researcher)
    assert state_of(answer) == ("declined", "No.", cast.reviewer)
    assert events(cast) == ["answer declined"]


def test_a_stale_tab_decides_nothing_and_keeps_the_note(client: Client, cast: Cast, answer) -> None:
    approve_answer(answer=answer, reviewer=cast.researcher)
    client.force_login(cast.reviewer)
    sent = client.post(
        PAGE, {"answer": answer.pk, "do": "decline", "seen": "waiting", "note": "I think not."}
    )
    assert sent.status_code == 400
    assert "Somebody else has reviewed this answer meanwhile" in text_of(sent)
    assert "I think not." in text_of(sent)
    assert state_of(answer) == ("approved", "", cast.researcher)


def test_declining_needs_a_note(client: Client, cast: Cast, answer) -> None:
    client.force_login(cast.reviewer)
    sent = client.post(PAGE, {"answer": answer.pk, "do": "decline", "seen": "waiting", "note": "  "})
    assert sent.status_code == 400
    assert "Say in a few words why you decline it" in text_of(sent)
    assert state_of(answer)[0] == "waiting"


@pytest.mark.parametrize("note", ["a\x00b", "x" * 2001])
def test_a_note_that_can_not_be_kept_is_refused(client: Client, cast: Cast, answer, note: str) -> None:
    client.force_login(cast.reviewer)
    sent = client.post(PAGE, {"answer": answer.pk, "do": "decline", "seen": "waiting", "note": note})
    assert sent.status_code == 400
    api = client.post(f"{API}/answers/{answer.pk}/decline", {"note": note}, "application/json")
    assert api.status_code == 400
    assert state_of(answer)[0] == "waiting"


@pytest.mark.parametrize(
    "sent", [{}, {"answer": "x"}, {"answer": "9" * 30}, {"answer": "-1"}, {"report": ""}]
)
def test_a_decision_about_nothing_is_a_404(client: Client, cast: Cast, answer, sent: dict) -> None:
    client.force_login(cast.reviewer)
    assert client.post(PAGE, sent | {"do": "approve", "seen": "waiting"}).status_code == 404


def test_an_unknown_decision_is_refused(client: Client, cast: Cast, answer) -> None:
    client.force_login(cast.reviewer)
    sent = client.post(PAGE, {"answer": answer.pk, "do": "burn", "seen": "waiting"})
    assert sent.status_code == 400
    assert "approve or decline" in text_of(sent)


def test_what_a_model_wrote_is_not_reviewed(client: Client, cast: Cast, answer) -> None:
    model = answer.edited_from
    with pytest.raises(Refused, match="not written by a person"):
        approve_answer(answer=model, reviewer=cast.reviewer)
    client.force_login(cast.reviewer)
    assert client.post(f"{API}/answers/{model.pk}/approve", {}, "application/json").status_code == 404


def test_an_answer_of_a_revised_or_withdrawn_judgment_waits_no_more(cast: Cast, answer) -> None:
    assert waiting_in([answer.judgment.comparison.round]) == waiting_for_review(cast.project) == 1
    withdraw_judgment(assignment=answer.judgment.assignment, submission_key=uuid.uuid4())
    assert waiting_in([answer.judgment.comparison.round]) == waiting_for_review(cast.project) == 0
    with pytest.raises(Conflict, match="taken it back"):
        approve_answer(answer=answer, reviewer=cast.reviewer)
    assert state_of(answer)[0] == "waiting"


def test_surplus_is_not_reviewed_as_no_dataset_would_take_it(cast: Cast) -> None:
    open_ranking(cast, comparisons=1, overlap=1)
    answer = write(cast, cast.anna, "Late.")
    late = revise(answer.judgment, slot_id=None)
    Completion.objects.filter(pk=answer.pk).update(judgment=late)
    assert not written_answers(cast.project).exists()


# --- the page ---


def test_the_page_shows_what_was_changed_oldest_first(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=2)
    first = write(cast, cast.anna, "Answer one, but **better**.")
    second = write(cast, cast.ben, "Another.")
    client.force_login(cast.reviewer)
    html = client.get(PAGE).content.decode()
    assert html.index(f"answer-{first.pk}") < html.index(f"answer-{second.pk}")
    assert "<ins>" in html
    assert "<del>" in html
    assert "How do I brew" in html


def test_a_demonstration_is_shown_whole_with_its_prompt(client: Client, cast: Cast, answer) -> None:
    demonstration = demonstrate(answer.judgment, "Use *soft* water.")
    client.force_login(cast.reviewer)
    html = client.get(PAGE).content.decode()
    assert f"answer-{demonstration.pk}" in html
    assert "A demonstration" in html
    assert "<em>soft</em>" in html
    assert "<ins>" not in html


def test_every_text_is_escaped(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    evil = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>"
    answer = write(cast, cast.anna, evil)
    Completion.objects.filter(pk=answer.edited_from_id).update(text=f"was {evil}")
    prompt = answer.prompt
    prompt.messages = [{"role": "user", "content": evil}]
    prompt.save()
    decline_answer(answer=answer, reviewer=cast.reviewer, note=evil)
    client.force_login(cast.researcher)
    html = client.get(f"{PAGE}?show=declined").content.decode()
    assert html.count("&lt;script&gt;alert(2)") >= 4  # changes, answer, prompt, note
    assert "<img" not in html
    assert "<script>" not in html


def test_characters_nobody_sees_are_shown_and_a_mask_is_warned_of(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    answer = write(cast, cast.anna, "Steep\u200b it \u202eyltrohs, says [masked].")
    client.force_login(cast.reviewer)
    html = client.get(PAGE).content.decode()
    for code in ("U+200B", "U+202E"):
        assert (
            html.count(f'<span class="hidden-character">{code}</span>') == 2
        )  # in the changes, and as it reads
    assert "is still in it" in html
    Completion.objects.filter(pk=answer.pk).update(text="Steep it shortly.")
    assert "is still in it" not in client.get(PAGE).content.decode()


def test_decided_answers_are_listed_with_who_decided(client: Client, cast: Cast, answer) -> None:
    client.force_login(cast.researcher)
    decline_answer(answer=answer, reviewer=cast.reviewer, note="Too bitter.")
    assert "No answer waits" in text_of(client.get(PAGE))
    page = text_of(client.get(f"{PAGE}?show=declined"))
    assert "Declined by reviewer" in page
    assert "Too bitter." in page
    assert "None approved yet" in text_of(client.get(f"{PAGE}?show=approved"))
    assert "No answer waits" in text_of(client.get(f"{PAGE}?show=nonsense"))


def test_a_page_of_many_answers_asks_as_much_of_the_database_as_a_page_of_one(
    client: Client, cast: Cast, django_assert_num_queries
) -> None:
    open_ranking(cast, comparisons=8)
    client.force_login(cast.reviewer)
    counts = []
    for user in (cast.anna, cast.ben):
        for number in range(4):
            write(cast, user, f"Answer {number} of {user}")
        with django_assert_num_queries(10**6, exact=False) as captured:
            client.get(PAGE)
        counts.append(len(captured))
    assert counts[0] == counts[1]


# --- the API ---


def test_the_api_lists_waiting_answers_and_takes_decisions(client: Client, cast: Cast, answer) -> None:
    client.force_login(cast.reviewer)
    (listed,) = client.get(f"{API}/answers").json()["results"]
    assert listed["id"] == answer.pk
    assert (listed["text"], listed["original"]) == (answer.text, answer.edited_from.text)
    assert (listed["author"], listed["round"], listed["review"]) == ("anna", 1, "waiting")
    assert listed["messages"] == answer.prompt.messages

    address = f"{API}/answers/{answer.pk}"
    assert client.post(f"{address}/decline", {}, "application/json").status_code == 400
    declined = client.post(f"{address}/decline", {"note": "No."}, "application/json").json()
    assert (declined["review"], declined["review_note"], declined["reviewed_by"]) == (
        *("declined", "No."),
        "reviewer",
    )
    for _ in range(2):
        approved = client.post(f"{address}/approve", {}, "application/json")
        assert (approved.status_code, approved.json()["review"]) == (200, "approved")
    assert client.get(f"{API}/answers").json()["results"] == []
    assert len(client.get(f"{API}/answers?review=approved").json()["results"]) == 1
    assert client.get(f"{API}/answers?review=lost").status_code == 400
    assert events(cast) == ["answer declined", "answer approved"]


def test_a_demonstration_has_no_original_in_the_api(client: Client, cast: Cast, answer) -> None:
    demonstrate(answer.judgment, "From scratch.")
    client.force_login(cast.reviewer)
    (listed,) = client.get(f"{API}/answers").json()["results"]
    assert (listed["text"], listed["original"]) == ("From scratch.", None)
    assert Judgment.objects.count() == 2
