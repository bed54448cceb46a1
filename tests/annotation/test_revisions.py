"""Revising, withdrawing and reporting: rows are added, none is changed, and a repeat does no harm."""

import json
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Completion, Judgment, Membership, Prompt, Report, Slot
from annotation.selectors.open_work import open_work
from annotation.services.claims import claim_comparison
from annotation.services.comparisons import ranking_is_over
from annotation.services.judgments import revise_judgment, submit_judgment, withdraw_judgment
from annotation.services.reports import report_comparison
from annotation.submissions import Note, Submission
from rankloop.errors import Conflict, Refused
from tests.cast import Cast, assemble, open_ranking
from tests.together import outcome_of, together


def said(*ranks: int, **more) -> Submission:
    return Submission(uuid.uuid4(), "ranked", ranks, **more)


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


@pytest.fixture
def judged(cast: Cast) -> Judgment:
    open_ranking(cast, comparisons=2, completions=2)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    return submit_judgment(assignment=assignment, submission=said(1, 2, strength=1))


def ago(minutes: float) -> None:
    """Move every judgment into the past: past the trigger, which refuses to change one."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE annotation_judgment DISABLE TRIGGER append_only")
        cursor.execute(
            "UPDATE annotation_judgment SET created_at = created_at - make_interval(mins => %s)", [minutes]
        )
        cursor.execute("ALTER TABLE annotation_judgment ENABLE TRIGGER append_only")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def test_a_revision_supersedes_and_counts_where_the_first_did(judged):
    revision = said(2, 1, strength=3)
    new = revise_judgment(assignment=judged.assignment, submission=revision, replaces=judged.submission_key)
    assert (new.supersedes, new.slot, new.strength) == (judged, judged.slot, 3)
    again = revise_judgment(assignment=judged.assignment, submission=revision, replaces=judged.submission_key)
    assert again == new
    assert Judgment.objects.count() == 2
    assert Judgment.objects.get(pk=judged.pk).strength == 1
    assert Slot.objects.filter(state=Slot.State.FILLED).count() == 1


def test_a_revision_from_a_stale_tab_is_a_conflict(judged):
    first = revise_judgment(
        assignment=judged.assignment, submission=said(2, 1), replaces=judged.submission_key
    )
    with pytest.raises(Conflict, match="revised this judgment elsewhere"):
        revise_judgment(assignment=judged.assignment, submission=said(1, 1), replaces=judged.submission_key)
    revise_judgment(assignment=judged.assignment, submission=said(1, 1), replaces=first.submission_key)
    assert Judgment.objects.count() == 3


def test_another_body_under_the_key_of_a_revision_is_a_conflict(judged):
    revision = said(2, 1)
    revise_judgment(assignment=judged.assignment, submission=revision, replaces=judged.submission_key)
    other = Submission(revision.submission_key, "ranked", (1, 1))
    with pytest.raises(Conflict, match="under this submission key"):
        revise_judgment(assignment=judged.assignment, submission=other, replaces=judged.submission_key)


def test_after_the_projects_time_a_judgment_can_be_withdrawn_but_not_revised(judged):
    ago(29)
    new = revise_judgment(assignment=judged.assignment, submission=said(2, 1), replaces=judged.submission_key)
    ago(2)
    with pytest.raises(Refused, match="for 30 minutes after it was sent"):
        revise_judgment(assignment=judged.assignment, submission=said(1, 1), replaces=new.submission_key)
    withdrawn = withdraw_judgment(assignment=judged.assignment, submission_key=uuid.uuid4())
    assert (withdrawn.outcome, withdrawn.supersedes) == (Judgment.Outcome.WITHDRAWN, new)


def test_a_withdrawal_is_repeatable_final_and_reopens_no_slot(cast, judged):
    first = withdraw_judgment(
        assignment=judged.assignment, submission_key=uuid.uuid4(), reason="I misread it."
    )
    assert withdraw_judgment(assignment=judged.assignment, submission_key=uuid.uuid4()) == first
    assert (first.reason, first.slot) == ("I misread it.", judged.slot)
    assert not first.ranking.exists()
    assert Slot.objects.get(pk=judged.slot_id).state == Slot.State.FILLED
    with pytest.raises(Conflict, match="withdrawn"):
        revise_judgment(assignment=judged.assignment, submission=said(1, 2), replaces=first.submission_key)


def test_a_withdrawal_under_the_key_of_a_judgment_is_a_conflict(judged):
    with pytest.raises(Conflict, match="under this submission key"):
        withdraw_judgment(assignment=judged.assignment, submission_key=judged.submission_key)


def test_what_was_not_judged_can_neither_be_revised_nor_withdrawn(cast):
    open_ranking(cast, comparisons=1, completions=2)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    for attempt in (
        lambda: withdraw_judgment(assignment=assignment, submission_key=uuid.uuid4()),
        lambda: revise_judgment(assignment=assignment, submission=said(1, 2), replaces=uuid.uuid4()),
    ):
        with pytest.raises(Conflict, match="not judged this comparison yet"):
            attempt()


def test_a_revision_keeps_the_review_of_a_text_it_does_not_change(cast):
    open_ranking(cast, comparisons=1, completions=2)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    notes = [Note(position=1, better="One."), Note(position=2, better="Two.")]
    first = submit_judgment(assignment=assignment, submission=said(1, 2, notes=notes))
    first.written.update(review="approved", reviewed_by=cast.reviewer, reviewed_at=timezone.now())
    changed = [Note(position=1, better="One."), Note(position=2, better="Two, better.")]
    new = revise_judgment(
        assignment=assignment, submission=said(2, 1, notes=changed), replaces=first.submission_key
    )
    assert dict(new.written.values_list("text", "review")) == {"One.": "approved", "Two, better.": "waiting"}
    assert Completion.objects.filter(contestant__kind="person").count() == 4


@pytest.mark.django_db(transaction=True)
def test_of_two_revisions_at_once_one_wins(transactional_db):
    cast = assemble()
    open_ranking(cast, comparisons=1, completions=2)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    first = submit_judgment(assignment=assignment, submission=said(1, 2))
    results = together(
        4,
        lambda number: outcome_of(
            lambda: revise_judgment(
                assignment=Assignment.objects.get(pk=assignment.pk),
                submission=said(2, 1),
                replaces=first.submission_key,
            ),
            Conflict,
        ),
    )
    assert sum(isinstance(result, Judgment) for result in results) == 1
    assert Judgment.objects.filter(superseded_by=None).count() == 1


# --- reports and opting out ---


def test_a_report_skips_the_comparison_and_is_kept_once(cast):
    open_ranking(cast, comparisons=2, completions=2)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    report = report_comparison(assignment=assignment, category="personal")
    assert report_comparison(assignment=assignment, category="broken") == report
    assert Report.objects.get().category == Report.Category.PERSONAL
    assert Assignment.objects.get(pk=assignment.pk).state == Assignment.State.SKIPPED
    assert claim_comparison(project=cast.project, annotator=cast.anna) != assignment


def test_what_was_judged_can_still_be_reported(judged):
    report_comparison(assignment=judged.assignment, category="leak")
    assert Assignment.objects.get(pk=judged.assignment_id).state == Assignment.State.SUBMITTED


def test_a_report_needs_a_known_reason_and_other_needs_words(judged):
    with pytest.raises(Refused, match="Known are broken"):
        report_comparison(assignment=judged.assignment, category="ugly")
    with pytest.raises(Refused, match="in a few words"):
        report_comparison(assignment=judged.assignment, category="other", text=" ")
    assert not Report.objects.exists()


def test_what_an_annotator_opted_out_of_is_never_offered_to_them(cast):
    round = open_ranking(cast, comparisons=4, completions=2, overlap=1)
    sensitive = list(Prompt.objects.order_by("pk")[:3])
    Prompt.objects.filter(pk__in=[row.pk for row in sensitive]).update(tags=["violence", "tea"])
    Membership.objects.filter(user=cast.anna).update(opted_out=["violence"])
    assert open_work(user=cast.anna, projects=[cast.project])[cast.project.pk] == 1
    offered = claim_comparison(project=cast.project, annotator=cast.anna)
    assert offered.comparison.prompt not in sensitive
    submit_judgment(assignment=offered, submission=said(1, 2))
    assert claim_comparison(project=cast.project, annotator=cast.anna) is None
    assert claim_comparison(project=cast.project, annotator=cast.ben).comparison.prompt in sensitive
    Assignment.objects.filter(annotator=cast.ben).update(lease_until=timezone.now() - timedelta(minutes=1))
    assert not ranking_is_over(round=round)
    Membership.objects.filter(user=cast.ben).update(opted_out=["tea"])
    assert claim_comparison(project=cast.project, annotator=cast.anna) is None  # which returns the lease
    assert ranking_is_over(round=round)


# --- over the API ---


@pytest.fixture
def anna(cast: Cast) -> Client:
    client = Client()
    client.force_login(cast.anna)
    return client


def post(client: Client, judgment: Judgment, action: str, **body):
    address = f"/api/v1/projects/tea/assignments/{judgment.assignment_id}/{action}"
    return client.post(address, json.dumps(body), content_type="application/json")


def test_ones_own_judgment_comes_back_by_position_and_can_be_sent_again_as_it_is(cast, anna, judged):
    address = f"/api/v1/projects/tea/assignments/{judged.assignment_id}"
    board = anna.get(address).json()
    mine = board["judgment"]
    assert (mine["ranks"], mine["strength"], mine["notes"]) == ([1, 2], 1, [])
    assert mine["submission_key"] == str(judged.submission_key)
    body = {
        "submission_key": str(uuid.uuid4()),
        "replaces": mine["submission_key"],
        "outcome": "ranked",
        "ranks": [2, 1],
        "strength": 2,
        "notes": [{"position": 2, "flags": ["unsafe"], "comment": "No."}],
    }
    assert post(anna, judged, "revise", **body).json() == {"recorded": True, "counted": True}
    mine = anna.get(address).json()["judgment"]
    assert (mine["ranks"], mine["strength"]) == ([2, 1], 2)
    assert mine["notes"] == [
        {"position": 2, "flags": ["unsafe"], "aspects": {}, "comment": "No.", "better": ""}
    ]
    assert post(anna, judged, "withdraw", submission_key=str(uuid.uuid4())).status_code == 204
    assert anna.get(address).json()["judgment"]["outcome"] == "withdrawn"


@pytest.mark.parametrize("action", ["revise", "withdraw", "report"])
def test_anothers_judgment_and_a_missing_one_are_the_same_404(cast, judged, action):
    answers = []
    for who in (cast.ben, cast.stranger, cast.admin):
        client = Client()
        client.force_login(who)
        answers.append(post(client, judged, action))
    assert {(answer.status_code, answer.content) for answer in answers} == {
        (404, answers[0].content),
    }


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("revise", {}),
        ("revise", {"submission_key": "x", "replaces": "y", "outcome": "ranked"}),
        ("withdraw", {}),
        ("report", {"category": "ugly"}),
        ("report", {}),
        ("report", {"category": "other"}),
    ],
)
def test_a_body_that_is_not_right_is_refused_in_words(anna, judged, action, body):
    answer = post(anna, judged, action, **body)
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert Judgment.objects.count() == 1
