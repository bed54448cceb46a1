"""Claiming a comparison, keeping it, giving it back: one after the other. Many at once: test_claims_at_once.py."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import Assignment, Comparison, Judgment, Project, Round, Slot
from annotation.selectors.open_work import open_work
from annotation.services.claims import (
    MOST_DRAFT_CHARACTERS,
    claim_comparison,
    expire_leases,
    release_comparison,
    renew_lease,
    save_draft,
    skip_comparison,
)
from annotation.services.judgments import submit_judgment
from annotation.services.members import open_project
from annotation.submissions import Submission
from annotation.tasks import expire_leases as expire_leases_task
from rankloop.errors import Conflict, Refused
from tests.cast import Cast, add_simulated, assemble, open_ranking

# Committed rows: within one transaction all leases would begin at the same moment.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cast() -> Cast:
    return assemble()


def claim(cast: Cast, annotator, **options) -> Assignment | None:
    return claim_comparison(project=cast.project, annotator=annotator, **options)


def submit(assignment: Assignment, *ranks: int) -> Judgment:
    ranks = ranks or tuple(range(1, len(assignment.shown_order) + 1))
    submission = Submission(submission_key=uuid.uuid4(), outcome="ranked", ranks=ranks)
    return submit_judgment(assignment=assignment, submission=submission)


def let_leases_run_out(**which) -> None:
    Assignment.objects.filter(state="open", **which).update(lease_until=timezone.now() - timedelta(minutes=1))


def states(round: Round) -> list[str]:
    return sorted(round.slots.values_list("state", flat=True))


def test_a_claim_leases_a_comparison_and_holds_its_slot(cast):
    round = open_ranking(cast, comparisons=1)
    before = timezone.now()
    assignment = claim(cast, cast.anna)
    assert (assignment.state, assignment.annotator_id) == ("open", cast.anna.pk)
    lease = timedelta(minutes=cast.project.lease_minutes)
    assert before + lease <= assignment.lease_until <= timezone.now() + lease
    assert Slot.objects.get(assignment=assignment).state == "held"
    assert states(round) == ["held", "open"]


def test_claiming_again_gives_the_same_comparison_with_its_time_renewed(cast):
    open_ranking(cast)
    first = claim(cast, cast.anna)
    Assignment.objects.update(lease_until=timezone.now() + timedelta(seconds=5))
    again = claim(cast, cast.anna)
    assert again.pk == first.pk
    assert again.lease_until > timezone.now() + timedelta(minutes=1)
    assert Assignment.objects.get() == first


def test_every_comparison_is_judged_once_before_any_is_judged_twice(cast):
    round = open_ranking(cast, comparisons=4, overlap=2)
    seen = []
    for annotator in (cast.anna, cast.ben, cast.anna, cast.ben):
        assignment = claim(cast, annotator)
        submit(assignment)
        seen.append(assignment.comparison_id)
    assert sorted(seen) == sorted(round.comparisons.values_list("pk", flat=True))
    second = claim(cast, cast.anna)
    assert second.slot.number == 2
    assert second.comparison_id in (seen[1], seen[3])


def test_an_annotator_sees_each_comparison_once_and_then_nothing_is_left(cast):
    round = open_ranking(cast, comparisons=3, overlap=2)
    seen = []
    while (assignment := claim(cast, cast.anna)) is not None:
        submit(assignment)
        seen.append(assignment.comparison_id)
        assert open_work(user=cast.anna, projects=[cast.project]) == {cast.project.pk: 3 - len(seen)}
    assert len(seen) == len(set(seen)) == 3
    assert states(round) == ["filled"] * 3 + ["open"] * 3


def test_a_round_of_higher_priority_is_ranked_first_then_the_older_one(cast):
    rounds = [open_ranking(cast, comparisons=1, overlap=1) for _ in range(3)]
    Round.objects.filter(pk=rounds[2].pk).update(priority=5)
    order = []
    while (assignment := claim(cast, cast.anna)) is not None:
        submit(assignment)
        order.append(assignment.comparison.round.number)
    assert order == [3, 1, 2]


@pytest.mark.parametrize("status", [status for status in Round.Status.values if status != "ranking"])
def test_a_round_that_is_not_ranking_gives_no_work(cast, status):
    round = open_ranking(cast)
    Round.objects.filter(pk=round.pk).update(status=status)
    assert claim(cast, cast.anna) is None
    assert open_work(user=cast.anna, projects=[cast.project]) == {cast.project.pk: 0}


def test_a_paused_project_gives_no_work_and_says_so(cast):
    open_ranking(cast)
    Project.objects.update(is_paused=True)
    cast.project.refresh_from_db()
    with pytest.raises(Refused, match="paused"):
        claim(cast, cast.anna)
    assert not Assignment.objects.exists()


def test_simulated_annotators_see_rehearsals_only_and_people_never_do(cast):
    simulated, _ = add_simulated(cast)
    open_ranking(cast, comparisons=2, audience="people")
    open_ranking(cast, comparisons=2, audience="rehearsal")
    for annotator, audience in ((cast.anna, "people"), (simulated, "rehearsal")):
        assert open_work(user=annotator, projects=[cast.project]) == {cast.project.pk: 2}
        audiences = []
        while (assignment := claim(cast, annotator)) is not None:
            audiences.append(assignment.comparison.round.audience)
            submit(assignment)
        assert audiences == [audience] * 2
    people, rehearsal = Judgment.objects.filter(source="person"), Judgment.objects.filter(source="rehearsal")
    assert {judgment.annotator for judgment in people} == {cast.anna}
    assert {judgment.annotator for judgment in rehearsal} == {simulated}


def test_a_slot_reserved_for_one_annotator_is_given_to_nobody_else(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    Slot.objects.update(reserved_for=cast.ben)
    assert claim(cast, cast.anna) is None
    assert open_work(user=cast.anna, projects=[cast.project]) == {cast.project.pk: 0}
    assert claim(cast, cast.ben) is not None


def test_work_of_another_project_is_never_given(cast):
    open_ranking(cast)
    other = open_project(slug="coffee", name="Coffee", user=cast.anna)
    assert claim_comparison(project=other, annotator=cast.anna) is None


def test_the_order_shown_is_a_shuffle_of_the_comparison_stored_for_each_annotator(cast):
    open_ranking(cast, comparisons=15, completions=4, overlap=2)
    orders: dict[int, list[list[int]]] = {}
    for annotator in (cast.anna, cast.ben):
        while (assignment := claim(cast, annotator)) is not None:
            orders.setdefault(assignment.comparison_id, []).append(assignment.shown_order)
            submit(assignment)
    for comparison, shown in orders.items():
        inside = sorted(Comparison.objects.get(pk=comparison).completions.values_list("pk", flat=True))
        assert [sorted(order) for order in shown] == [inside, inside]
    # Chance alone would make all fifteen equal once in 24 ** 15 runs.
    assert any(first != second for first, second in orders.values())
    assert any(first != sorted(first) for first, _ in orders.values())


# --- leases that run out ---


def test_a_lease_that_ran_out_goes_to_somebody_else_without_waiting_for_the_sweep(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    late = claim(cast, cast.anna)
    assert claim(cast, cast.ben) is None
    let_leases_run_out()
    taken = claim(cast, cast.ben)
    assert taken.comparison_id == late.comparison_id
    late.refresh_from_db()
    assert late.state == "expired"
    assert Slot.objects.get().assignment == taken


def test_sweeping_leases_twice_does_what_sweeping_once_does(cast):
    round = open_ranking(cast, comparisons=2, overlap=1)
    claim(cast, cast.anna)
    let_leases_run_out()
    claim(cast, cast.ben)
    assert expire_leases() == 1
    assert expire_leases() == 0
    expire_leases_task()
    assert states(round) == ["held", "open"]


def test_a_lease_that_ran_out_is_taken_up_again_in_the_same_order_with_its_draft(cast):
    open_ranking(cast, comparisons=1)
    first = claim(cast, cast.anna)
    save_draft(assignment=first, draft={"ranks": [1, None]})
    let_leases_run_out()
    expire_leases()
    again = claim(cast, cast.anna)
    assert (again.pk, again.shown_order, again.draft) == (first.pk, first.shown_order, {"ranks": [1, None]})
    assert again.state == "open"
    assert again.slot.state == "held"


def test_a_late_answer_counts_while_its_slot_is_free(cast):
    round = open_ranking(cast, comparisons=1, overlap=1)
    late = claim(cast, cast.anna)
    let_leases_run_out()
    expire_leases()
    assert submit(late).is_counted
    assert states(round) == ["filled"]
    assert claim(cast, cast.ben) is None


def test_a_late_answer_whose_slot_was_refilled_is_kept_as_surplus(cast):
    round = open_ranking(cast, comparisons=1, overlap=1)
    late = claim(cast, cast.anna)
    let_leases_run_out()
    in_time = submit(claim(cast, cast.ben))
    judgment = submit(late)
    assert (in_time.is_counted, judgment.is_counted) == (True, False)
    assert judgment.ranking.count() == 4
    assert states(round) == ["filled"]
    assert Slot.objects.get().judgments.get() == in_time


def test_a_late_answer_does_not_take_the_slot_somebody_holds_now(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    late = claim(cast, cast.anna)
    let_leases_run_out()
    holder = claim(cast, cast.ben)
    assert not submit(late).is_counted
    assert submit(holder).is_counted


def test_a_late_answer_does_not_take_a_slot_reserved_for_somebody_else(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    late = claim(cast, cast.anna)
    let_leases_run_out()
    expire_leases()
    Slot.objects.update(reserved_for=cast.ben)
    assert not submit(late).is_counted


def test_a_lease_whose_place_is_taken_cannot_be_renewed_and_the_refusal_says_what_can_be_done(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    late = claim(cast, cast.anna)
    let_leases_run_out()
    expire_leases()
    claim(cast, cast.ben)
    with pytest.raises(Conflict, match="You can still send your ranking"):
        renew_lease(assignment=late, minutes=15)


# --- skipping and giving back ---


def test_a_skipped_comparison_goes_to_others_and_never_comes_back(cast):
    open_ranking(cast, comparisons=2, overlap=1)
    skipped = claim(cast, cast.anna)
    skip_comparison(assignment=skipped, reason="It is about coffee.")
    skip_comparison(assignment=skipped, reason="It is about coffee.")
    other = claim(cast, cast.anna)
    assert other.comparison_id != skipped.comparison_id
    submit(other)
    assert claim(cast, cast.anna) is None
    assert claim(cast, cast.ben).comparison_id == skipped.comparison_id
    skipped.refresh_from_db()
    assert (skipped.state, skipped.reason) == ("skipped", "It is about coffee.")


def test_what_was_judged_cannot_be_skipped(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    assignment = claim(cast, cast.anna)
    submit(assignment)
    with pytest.raises(Conflict, match="judged"):
        skip_comparison(assignment=assignment, reason="")
    assert Slot.objects.get().state == "filled"


def test_a_comparison_given_back_is_offered_again_first(cast):
    round = open_ranking(cast, comparisons=3, overlap=1)
    given_back = claim(cast, cast.anna)
    release_comparison(assignment=given_back)
    release_comparison(assignment=given_back)
    assert states(round) == ["open"] * 3
    again = claim(cast, cast.anna)
    assert (again.pk, again.shown_order) == (given_back.pk, given_back.shown_order)


def test_giving_back_what_was_judged_changes_nothing(cast):
    open_ranking(cast, comparisons=1, overlap=1)
    assignment = claim(cast, cast.anna)
    submit(assignment)
    release_comparison(assignment=assignment)
    assert Slot.objects.get().state == "filled"
    assert Assignment.objects.get().state == "submitted"


def test_what_others_give_back_behind_ones_own_position_is_still_found(cast):
    open_ranking(cast, comparisons=3, overlap=1)
    early = claim(cast, cast.ben)
    for _ in range(2):
        submit(claim(cast, cast.anna))
    skip_comparison(assignment=early, reason="")
    assert claim(cast, cast.anna).comparison_id == early.comparison_id


def test_what_one_skipped_oneself_does_not_stand_before_what_others_gave_back(cast):
    open_ranking(cast, comparisons=3, overlap=1)
    mine, bens = claim(cast, cast.anna), claim(cast, cast.ben)
    skip_comparison(assignment=mine, reason="")
    submit(claim(cast, cast.anna))
    release_comparison(assignment=bens)
    assert claim(cast, cast.anna).comparison_id == bens.comparison_id


# --- fetching ahead ---


def test_a_second_comparison_is_fetched_ahead_beside_the_one_held_and_never_a_third(cast):
    open_ranking(cast, comparisons=4)
    held = claim(cast, cast.anna)
    ahead = claim(cast, cast.anna, prefetch=True, holding=held.pk)
    assert ahead.comparison_id != held.comparison_id
    assert claim(cast, cast.anna, prefetch=True, holding=held.pk) == ahead
    assert claim(cast, cast.anna, prefetch=True, holding=ahead.pk) == held
    assert claim(cast, cast.anna, prefetch=True, holding=uuid.uuid4()) == held
    assert claim(cast, cast.anna) == held
    assert Assignment.objects.filter(state="open").count() == 2


def test_fetching_ahead_while_holding_nothing_gives_the_first(cast):
    open_ranking(cast)
    first = claim(cast, cast.anna, prefetch=True)
    assert claim(cast, cast.anna, prefetch=True) == first


def test_naming_what_one_holds_without_fetching_ahead_gives_just_that(cast):
    open_ranking(cast)
    held = claim(cast, cast.anna)
    assert claim(cast, cast.anna, holding=held.pk) == held


def test_after_submitting_the_one_fetched_ahead_comes_next(cast):
    open_ranking(cast, comparisons=3)
    held = claim(cast, cast.anna)
    ahead = claim(cast, cast.anna, prefetch=True, holding=held.pk)
    submit(held)
    assert claim(cast, cast.anna) == ahead


# --- drafts ---


def test_a_draft_is_kept_until_the_judgment_and_refused_after(cast):
    open_ranking(cast)
    assignment = claim(cast, cast.anna)
    save_draft(assignment=assignment, draft={"ranks": [2, 1]})
    assert claim(cast, cast.anna).draft == {"ranks": [2, 1]}
    submit(assignment)
    assignment.refresh_from_db()
    assert assignment.draft is None
    with pytest.raises(Conflict, match="judged"):
        save_draft(assignment=assignment, draft={})


def test_a_draft_survives_the_end_of_its_lease(cast):
    open_ranking(cast)
    assignment = claim(cast, cast.anna)
    let_leases_run_out()
    expire_leases()
    save_draft(assignment=assignment, draft={"ranks": [2, 1]})
    assert Assignment.objects.get().draft == {"ranks": [2, 1]}


def test_a_draft_that_is_too_long_is_refused(cast):
    open_ranking(cast)
    assignment = claim(cast, cast.anna)
    with pytest.raises(Refused, match=f"{MOST_DRAFT_CHARACTERS:,}"):
        save_draft(assignment=assignment, draft={"comment": "x" * MOST_DRAFT_CHARACTERS})


@pytest.mark.parametrize(
    "draft", [{"comment": "a\x00b"}, {"a\x00b": 1}, {"x": float("inf")}, {"x": "\ud800"}]
)
def test_a_draft_the_database_cannot_keep_is_refused(cast, draft):
    open_ranking(cast)
    assignment = claim(cast, cast.anna)
    with pytest.raises(Refused, match="draft"):
        save_draft(assignment=assignment, draft=draft)


def test_what_was_begun_comes_before_what_was_fetched_ahead_from_a_round_of_higher_priority(cast):
    open_ranking(cast, comparisons=1)
    begun = claim(cast, cast.anna)
    open_ranking(cast, comparisons=1)
    Round.objects.filter(number=2).update(priority=5)
    ahead = claim_comparison(project=cast.project, annotator=cast.anna, prefetch=True, holding=begun.pk)
    assert ahead.comparison.round.number == 2
    assert claim(cast, cast.anna) == begun  # on another device say
