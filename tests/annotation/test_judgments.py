"""Submitting a judgment: what is accepted, what a repeat does, and what the database itself refuses."""

import uuid
from dataclasses import replace

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from annotation.models import Assignment, Comparison, Guideline, Judgment, RankedCompletion, Round, Slot
from annotation.services.claims import claim_comparison
from annotation.services.judgments import MOST_ACTIVE_SECONDS, submit_judgment
from annotation.submissions import Submission, check_ranks
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused
from tests.cast import Cast, add_simulated, assemble, open_ranking


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


@pytest.fixture
def assignment(cast) -> Assignment:
    open_ranking(cast, comparisons=2)
    return claim_comparison(project=cast.project, annotator=cast.anna)


def ranked(*ranks: int, **changes) -> Submission:
    return Submission(
        **{"submission_key": uuid.uuid4(), "outcome": "ranked", "ranks": list(ranks), **changes}
    )


def test_a_ranking_is_kept_by_completion_not_by_position(assignment):
    judgment = submit_judgment(assignment=assignment, submission=ranked(2, 1, 1, 3, active_seconds=12.5))
    kept = dict(judgment.ranking.values_list("completion_id", "rank"))
    assert kept == dict(zip(assignment.shown_order, [2, 1, 1, 3], strict=True))
    assert (judgment.outcome, judgment.source, judgment.blind) == ("ranked", "person", True)
    assert judgment.active_seconds == 12.5
    assert judgment.is_counted


def test_all_bad_and_cannot_judge_carry_no_ranking(cast, assignment):
    bad = submit_judgment(
        assignment=assignment, submission=ranked(outcome="all_bad", reason="All of them are made up.")
    )
    following = claim_comparison(project=cast.project, annotator=cast.anna)
    unable = submit_judgment(
        assignment=following, submission=ranked(outcome="cannot_judge", reason="I don't read Dutch.")
    )
    assert [bad.reason, unable.reason] == ["All of them are made up.", "I don't read Dutch."]
    assert [bad.is_counted, unable.is_counted] == [True, True]
    assert not RankedCompletion.objects.exists()


def test_all_bad_needs_no_reason(assignment):
    assert submit_judgment(assignment=assignment, submission=ranked(outcome="all_bad")).outcome == "all_bad"


@pytest.mark.parametrize(
    ("submission", "said"),
    [
        (ranked(), "4 completions, and 0 ranks"),
        (ranked(1, 2, 3), "4 completions, and 3 ranks"),
        (ranked(1, 2, 3, 4, 5), "4 completions, and 5 ranks"),
        (ranked(1, 3, 3, 4), "gaps"),
        (ranked(2, 3, 4, 5), "gaps"),
        (ranked(0, 1, 2, 3), "gaps"),
        (ranked(1, 2, 3, 4, outcome="all_bad"), "Leave them out"),
        (ranked(outcome="cannot_judge"), "cannot judge"),
        (ranked(outcome="cannot_judge", reason="  \n"), "cannot judge"),
    ],
)
def test_a_judgment_that_is_not_right_is_refused_and_nothing_is_kept(assignment, submission, said):
    with pytest.raises(Refused, match=said):
        submit_judgment(assignment=assignment, submission=submission)
    assert not Judgment.objects.exists()
    assignment.refresh_from_db()
    assert assignment.state == "open"
    # The right one can still be sent, under the same key.
    again = ranked(1, 2, 3, 4, submission_key=submission.submission_key)
    assert submit_judgment(assignment=assignment, submission=again).is_counted


@given(st.lists(st.integers(0, 5), max_size=5))
def test_ranks_are_right_exactly_when_each_rank_below_the_last_is_taken(ranks):
    expected = len(ranks) == 4 and all(rank in ranks for rank in range(1, max(ranks) + 1)) and min(ranks) == 1
    try:
        check_ranks(ranks, completions=4)
    except Refused:
        assert not expected
    else:
        assert expected


def test_the_same_judgment_again_is_the_first_one(assignment):
    submission = ranked(1, 2, 3, 4)
    first = submit_judgment(assignment=assignment, submission=submission)
    # The page has gone on counting seconds; the judgment is the same.
    again = submit_judgment(
        assignment=assignment,
        submission=ranked(1, 2, 3, 4, submission_key=submission.submission_key, active_seconds=99),
    )
    assert again == first
    assert Judgment.objects.count() == 1


@pytest.mark.parametrize(
    "change", [{"ranks": [1, 1, 1, 2]}, {"reason": "x"}, {"outcome": "all_bad", "ranks": []}]
)
def test_another_judgment_under_the_same_key_is_refused(assignment, change):
    submission = ranked(1, 2, 3, 4)
    submit_judgment(assignment=assignment, submission=submission)
    with pytest.raises(Conflict, match="submission key"):
        submit_judgment(assignment=assignment, submission=replace(submission, **change))
    kept = Judgment.objects.get().ranking.order_by("rank").values_list("rank", flat=True)
    assert list(kept) == [1, 2, 3, 4]


def test_a_second_judgment_under_a_new_key_is_refused(assignment):
    submit_judgment(assignment=assignment, submission=ranked(1, 2, 3, 4))
    with pytest.raises(Conflict, match="judged this comparison already"):
        submit_judgment(assignment=assignment, submission=ranked(4, 3, 2, 1))
    assert Judgment.objects.count() == 1


def test_a_key_used_for_another_comparison_is_refused_and_the_comparison_stays_open(cast, assignment):
    submission = ranked(1, 2, 3, 4)
    submit_judgment(assignment=assignment, submission=submission)
    following = claim_comparison(project=cast.project, annotator=cast.anna)
    with pytest.raises(Conflict, match="submission key"):
        submit_judgment(assignment=following, submission=submission)
    following.refresh_from_db()
    assert (following.state, following.slot.state) == ("open", "held")


def test_a_page_left_open_does_not_count_as_days_of_work(assignment):
    judgment = submit_judgment(assignment=assignment, submission=ranked(1, 2, 3, 4, active_seconds=1e9))
    assert judgment.active_seconds == MOST_ACTIVE_SECONDS


def test_a_judgment_keeps_the_guideline_it_was_made_under(cast, assignment):
    second = Guideline.objects.create(project=cast.project, version=2, text="Prefer the shorter one.")
    judgment = submit_judgment(assignment=assignment, submission=ranked(1, 2, 3, 4))
    assert judgment.guideline == second


def test_judgments_of_simulated_annotators_are_marked(cast):
    simulated = add_simulated(cast)[0]
    open_ranking(cast, audience="rehearsal")
    assignment = claim_comparison(project=cast.project, annotator=simulated)
    judgment = submit_judgment(assignment=assignment, submission=ranked(1, 2, 3, 4))
    assert judgment.source == "rehearsal"


# --- what the database itself refuses ---


def refuses(sql: str, *values, of: str) -> None:
    with pytest.raises(DatabaseError, match=of), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, values)


@pytest.fixture
def judgment(assignment) -> Judgment:
    return submit_judgment(assignment=assignment, submission=ranked(1, 2, 3, 4))


def test_a_judgment_can_neither_be_changed_nor_deleted(judgment):
    refuses("UPDATE annotation_judgment SET outcome = 'all_bad'", of="append-only")
    refuses("DELETE FROM annotation_judgment", of="append-only")
    refuses("UPDATE annotation_rankedcompletion SET rank = 1", of="append-only")
    refuses("DELETE FROM annotation_rankedcompletion", of="append-only")
    assert Judgment.objects.get().outcome == "ranked"


def test_the_audit_log_can_neither_be_changed_nor_deleted(cast):
    record("tea brewed", actor=cast.anna)
    refuses("UPDATE audit_auditevent SET action = 'x'", of="append-only")
    refuses("DELETE FROM audit_auditevent", of="append-only")


def insert_ranked(judgment: Judgment, *, comparison: int, completion: int, rank: int = 1) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO annotation_rankedcompletion "
            "(judgment_id, comparison_id, completion_id, rank, flags, aspects, comment) "
            "VALUES (%s, %s, %s, %s, '{}', '{}', '')",
            [judgment.pk, comparison, completion, rank],
        )


def unranked_judgment(cast: Cast) -> Judgment:
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    return submit_judgment(assignment=assignment, submission=ranked(outcome="all_bad"))


def test_a_completion_can_be_ranked_only_within_the_comparison_that_was_judged(cast, assignment):
    judgment = unranked_judgment(cast)
    mine = judgment.comparison
    other = Comparison.objects.exclude(pk=mine.pk).get()
    shown, foreign = mine.completions.first().pk, other.completions.first().pk
    cases = [
        (mine.pk, foreign, 1, "ranked_completion_was_shown"),  # not shown in this comparison
        (other.pk, foreign, 1, "ranked_in_judged_comparison"),  # the judgment is about another comparison
        (other.pk, shown, 1, "ranked_"),  # neither fits
        (mine.pk, shown, 0, "rank_in_range"),
        (mine.pk, shown, 9, "rank_in_range"),
    ]
    for comparison, completion, rank, constraint in cases:
        with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
            insert_ranked(judgment, comparison=comparison, completion=completion, rank=rank)
    insert_ranked(judgment, comparison=mine.pk, completion=shown)
    with pytest.raises(IntegrityError, match="a_completion_once_per_judgment"), transaction.atomic():
        insert_ranked(judgment, comparison=mine.pk, completion=shown)


def copy_of(judgment: Judgment, **changes) -> Judgment:
    """An unsaved judgment equal to one in the database but for the changes."""
    fields = [field.attname for field in Judgment._meta.concrete_fields if field.attname != "id"]
    values = {name: getattr(judgment, name) for name in fields}
    return Judgment(**{**values, "submission_key": uuid.uuid4(), **changes})


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"slot_id": None}, "one_first_judgment_per_assignment"),
        ({"outcome": "splendid"}, "known_outcome"),
        ({"source": "oracle"}, "known_source"),
        ({"active_seconds": -1}, "time_is_not_negative"),
    ],
)
def test_each_constraint_on_judgments_holds(judgment, changes, constraint):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        copy_of(judgment, **changes).save()


def test_a_slot_counts_one_judgment(cast, judgment):
    other = Assignment.objects.create(
        comparison=judgment.comparison,
        annotator=cast.ben,
        state="submitted",
        lease_until=judgment.created_at,
        claimed_at=judgment.created_at,
        position=1,
        shown_order=[],
    )
    with pytest.raises(IntegrityError, match="one_counted_judgment_per_slot"), transaction.atomic():
        copy_of(judgment, assignment_id=other.pk, annotator_id=cast.ben.pk).save()


def test_a_submission_key_is_used_once(judgment):
    with pytest.raises(IntegrityError, match="submission_key"), transaction.atomic():
        copy_of(judgment, submission_key=judgment.submission_key).save()


def test_a_judgment_is_superseded_at_most_once(judgment):
    copy_of(judgment, supersedes_id=judgment.pk).save()
    with pytest.raises(IntegrityError, match="supersedes"), transaction.atomic():
        copy_of(judgment, supersedes_id=judgment.pk).save()


def test_each_constraint_on_slots_and_assignments_holds(assignment):
    held, free = Slot.objects.get(assignment=assignment), Slot.objects.filter(state="open").first()
    slot = "UPDATE annotation_slot SET {} WHERE id = %s"
    refuses(slot.format("assignment_id = NULL"), held.pk, of="held_means_assigned")
    refuses(slot.format("state = 'filled'"), free.pk, of="held_means_assigned")
    refuses(slot.format("state = 'open'"), held.pk, of="held_means_assigned")
    refuses(slot.format("state = 'lost', assignment_id = NULL"), held.pk, of="held_means_assigned")
    refuses("UPDATE annotation_slot SET number = 1", of="one_slot_per_number")
    refuses("UPDATE annotation_slot SET position = 1", of="one_slot_per_position")
    refuses("UPDATE annotation_assignment SET state = 'asleep'", of="known_assignment_state")
    second = Assignment(
        **{f.attname: getattr(assignment, f.attname) for f in Assignment._meta.concrete_fields}
    )
    second.pk = uuid.uuid4()
    with pytest.raises(IntegrityError, match="one_assignment_per_annotator"), transaction.atomic():
        second.save(force_insert=True)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("audience = 'everybody'", "known_audience"),
        ("overlap = 0", "round_sizes_in_range"),
        ("completions_per_comparison = 9", "round_sizes_in_range"),
        ("completions_per_comparison = 1", "round_sizes_in_range"),
        ("samples_per_contestant = 0", "round_sizes_in_range"),
    ],
)
def test_each_constraint_on_rounds_holds(cast, change, constraint):
    Round.objects.create(project=cast.project, number=1, name="First")
    refuses(f"UPDATE annotation_round SET {change}", of=constraint)
