"""Claims and submits by many at once, on a real PostgreSQL: no slot over-assigned, none left over, nobody twice."""

import random
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from django.db.models import Count
from django.utils import timezone

from annotation.models import Assignment, Judgment, Round, Slot
from annotation.services.claims import claim_comparison, expire_leases, skip_comparison
from annotation.services.judgments import submit_judgment
from annotation.services.members import add_member
from annotation.submissions import Submission
from rankloop.accounts.models import User
from rankloop.errors import Conflict
from tests.cast import Cast, assemble, open_ranking
from tests.together import outcome_of, together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cast() -> Cast:
    return assemble()


def add_annotators(cast: Cast, count: int) -> list[User]:
    annotators = [User.objects.create(username=f"annotator {number}") for number in range(count)]
    for annotator in annotators:
        add_member(project=cast.project, user=annotator, role="annotator")
    return annotators


def ranking(assignment: Assignment) -> Submission:
    ranks = range(1, len(assignment.shown_order) + 1)
    return Submission(submission_key=uuid.uuid4(), outcome="ranked", ranks=list(ranks))


def check_books(round: Round) -> None:
    """What must hold at any time: filled slots and counted judgments are the same thing, and nobody judges twice."""
    counted = Judgment.objects.filter(comparison__round=round, slot__isnull=False)
    filled = Slot.objects.filter(round=round, state="filled")
    assert set(counted.values_list("slot_id", flat=True)) == set(filled.values_list("pk", flat=True))
    assert counted.count() == filled.count()
    per_comparison = round.comparisons.annotate(judged=Count("slots__judgments"))
    assert max(per_comparison.values_list("judged", flat=True)) <= round.overlap
    twice = Judgment.objects.values("annotator", "comparison").annotate(n=Count("pk")).filter(n__gt=1)
    assert list(twice) == []
    for judgment in counted.select_related("slot"):
        assert judgment.slot.comparison_id == judgment.comparison_id
        assert judgment.slot.assignment_id == judgment.assignment_id


@pytest.mark.slow
def test_sixteen_annotators_fill_every_slot_exactly_once(cast):
    round = open_ranking(cast, comparisons=300, completions=2, overlap=2)
    annotators = add_annotators(cast, 16)

    def annotate(number: int) -> list[uuid.UUID]:
        """Judge until nothing is left; the submission keys that were acknowledged as counted."""
        keys = []
        while (
            assignment := claim_comparison(project=cast.project, annotator=annotators[number])
        ) is not None:
            submission = ranking(assignment)
            assert submit_judgment(assignment=assignment, submission=submission).is_counted
            keys.append(submission.submission_key)
        return keys

    acknowledged = [key for keys in together(16, annotate) for key in keys]
    check_books(round)
    assert Counter(round.slots.values_list("state", flat=True)) == {"filled": 600}
    assert Counter(acknowledged) == Counter(Judgment.objects.values_list("submission_key", flat=True))
    assert Counter(Judgment.objects.values_list("comparison", flat=True).distinct()).total() == 300
    assert set(Assignment.objects.values_list("state", flat=True)) == {"submitted"}


def test_two_tabs_of_each_annotator_at_once_lease_and_judge_nothing_twice(cast):
    round = open_ranking(cast, comparisons=30, completions=2, overlap=3)
    annotators = add_annotators(cast, 4)
    most_leases = []

    def tab(number: int) -> int:
        annotator, conflicts = annotators[number // 2], 0
        while (assignment := claim_comparison(project=cast.project, annotator=annotator)) is not None:
            most_leases.append(Assignment.objects.filter(annotator=annotator, state="open").count())
            sent = outcome_of(
                lambda a=assignment: submit_judgment(assignment=a, submission=ranking(a)), Conflict
            )
            conflicts += isinstance(sent, Conflict)
        return conflicts

    together(8, tab)
    check_books(round)
    assert set(round.slots.values_list("state", flat=True)) == {"filled"}
    assert max(most_leases) <= 2


def test_tabs_that_fetch_ahead_at_once_never_hold_more_than_two(cast):
    open_ranking(cast, comparisons=20, completions=2, overlap=1)

    def tab(number: int) -> Assignment:
        first = claim_comparison(project=cast.project, annotator=cast.anna)
        return claim_comparison(project=cast.project, annotator=cast.anna, prefetch=True, holding=first.pk)

    fetched = together(8, tab)
    assert len(set(fetched)) == 1
    assert Assignment.objects.filter(annotator=cast.anna).count() == 2
    assert Slot.objects.filter(state="held").count() == 2


def test_leases_that_run_out_under_load_lose_and_double_nothing(cast):
    round = open_ranking(cast, comparisons=40, completions=2, overlap=2)
    annotators = add_annotators(cast, 7)

    def annotate(number: int) -> list[tuple[uuid.UUID, bool]]:
        if number == 7:  # the sweep
            for _ in range(60):
                expire_leases()
            return []
        chance, told = random.Random(number), []
        while (
            assignment := claim_comparison(project=cast.project, annotator=annotators[number])
        ) is not None:
            fate = chance.random()
            if fate < 0.3:
                past = timezone.now() - timedelta(minutes=1)
                Assignment.objects.filter(pk=assignment.pk, state="open").update(lease_until=past)
                if fate < 0.1:
                    expire_leases()
            elif fate < 0.4:
                skip_comparison(assignment=assignment, reason="")
                continue
            submission = ranking(assignment)
            judgment = submit_judgment(assignment=assignment, submission=submission)
            told.append((submission.submission_key, judgment.is_counted))
        return told

    told = [one for annotator in together(8, annotate) for one in annotator]
    # What was skipped or ran out after somebody had found nothing left is there for them when they come back.
    told += [one for number in range(7) for one in annotate(number)]
    check_books(round)
    rows = Judgment.objects.values_list("submission_key", "slot")
    assert Counter(told) == Counter((key, slot is not None) for key, slot in rows)
    assert set(round.slots.values_list("state", flat=True)) <= {"filled", "open"}
    # What is open is so only because too many skipped it.
    for slot in round.slots.filter(state="open"):
        done = slot.comparison.assignments.filter(state__in=["submitted", "skipped"])
        assert done.count() == len(annotators)


def test_a_judgment_sent_many_times_at_once_is_recorded_once(cast):
    open_ranking(cast, comparisons=1)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    submission = ranking(assignment)
    answers = together(8, lambda _: submit_judgment(assignment=assignment, submission=submission))
    assert len({answer.pk for answer in answers}) == 1
    assert {answer.is_counted for answer in answers} == {True}
    assert Judgment.objects.get().ranking.count() == 4


def test_of_many_judgments_of_one_comparison_sent_at_once_one_is_recorded(cast):
    open_ranking(cast, comparisons=1)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)

    def send(_: int):
        return outcome_of(
            lambda: submit_judgment(assignment=assignment, submission=ranking(assignment)), Conflict
        )

    answers = together(8, send)
    assert sum(isinstance(answer, Judgment) for answer in answers) == 1
    assert Judgment.objects.count() == 1
    assert Slot.objects.filter(state="filled").count() == 1
