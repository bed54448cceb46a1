"""What annotation does for a round: choosing its prompts, opening its comparisons, ending its ranking."""

import uuid
from collections import Counter
from datetime import timedelta

import pytest
from django.db.models import ProtectedError
from django.utils import timezone

from annotation.models import Assignment, Comparison, Completion, Judgment, Prompt, Round
from annotation.services.claims import claim_comparison, expire_leases, skip_comparison
from annotation.services.comparisons import close_slots, freeze_prompts, open_comparisons, ranking_is_over
from annotation.services.contestants import register_contestant
from annotation.services.judgments import submit_judgment
from annotation.services.members import add_member
from annotation.submissions import Submission
from rankloop.accounts.models import User
from tests.cast import Cast, add_contestants, add_prompts, add_simulated, assemble, open_ranking
from tests.together import together


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


def draft(cast: Cast, **changes) -> Round:
    number = cast.project.rounds.count() + 1
    return Round.objects.create(project=cast.project, number=number, name=f"Round {number}", **changes)


def write(round: Round, contestants, texts: dict[int, str] | None = None) -> None:
    """Completions of some contestants for every prompt of a round; `texts` replaces those of some contestants."""
    Completion.objects.bulk_create(
        Completion(
            prompt=prompt,
            contestant=contestant,
            sample_index=round.first_sample + sample,
            text=(texts or {}).get(contestant.pk, f"{contestant} {sample} on {prompt.pk}"),
        )
        for prompt in round.prompts.all()
        for contestant in contestants
        for sample in range(round.samples_per_contestant)
    )


def judge(assignment: Assignment) -> Judgment:
    ranks = list(range(1, len(assignment.shown_order) + 1))
    return submit_judgment(assignment=assignment, submission=Submission(uuid.uuid4(), "ranked", ranks))


# --- choosing prompts ---


def test_a_round_gets_as_many_prompts_of_each_split_as_it_asks_for_and_keeps_them(cast):
    add_prompts(cast, 30)
    round = draft(cast, train_prompts=5, held_out_prompts=3, seed=1)
    assert freeze_prompts(round=round) == 8
    chosen = set(round.prompts.all())
    assert Counter(prompt.split for prompt in chosen) == {"train": 5, "held_out": 3}
    add_prompts(cast, 60)
    assert freeze_prompts(round=round) == 8
    assert set(round.prompts.all()) == chosen


def test_the_seed_alone_decides_which_prompts(cast):
    add_prompts(cast, 30)
    chosen = []
    for seed in (1, 1, 2):
        round = draft(cast, train_prompts=5, held_out_prompts=0, seed=seed)
        freeze_prompts(round=round)
        chosen.append(set(round.prompts.all()))
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_project_with_fewer_prompts_gives_all_it_has(cast):
    add_prompts(cast, 4)
    round = draft(cast, train_prompts=100, held_out_prompts=100)
    assert freeze_prompts(round=round) == 4
    empty = draft(cast, train_prompts=0, held_out_prompts=0)
    assert freeze_prompts(round=empty) == 0


def test_a_new_round_begins_behind_the_samples_its_contestants_have_written(cast):
    add_prompts(cast, 3)
    contestants = add_contestants(cast, "plain", "polite")
    first = draft(cast, samples_per_contestant=2)
    first.contestants.set(contestants)
    freeze_prompts(round=first)
    assert first.first_sample == 0
    write(first, contestants)
    second = draft(cast)
    second.contestants.set(contestants[:1])
    freeze_prompts(round=second)
    assert second.first_sample == 2
    unused = draft(cast)
    unused.contestants.set(add_contestants(cast, "fresh"))
    freeze_prompts(round=unused)
    assert unused.first_sample == 0


def test_a_round_told_where_to_begin_begins_there(cast):
    add_prompts(cast, 3)
    round = draft(cast, first_sample=7)
    freeze_prompts(round=round)
    round.refresh_from_db()
    assert round.first_sample == 7


# --- opening comparisons ---


def opened(cast: Cast, **changes) -> Round:
    add_prompts(cast, 3)
    round = draft(
        cast, **{"overlap": 2, "samples_per_contestant": 2, "completions_per_comparison": 4, **changes}
    )
    contestants = add_contestants(cast, "plain", "polite")
    round.contestants.set(contestants)
    freeze_prompts(round=round)
    write(round, contestants)
    return round


def test_each_prompt_gets_its_comparisons_and_each_comparison_its_slots(cast):
    round = opened(cast, completions_per_comparison=2, overlap=3)
    assert open_comparisons(round=round) == 6
    for comparison in round.comparisons.all():
        completions = comparison.completions.all()
        assert {completion.prompt for completion in completions} == {comparison.prompt}
        assert len({completion.contestant_id for completion in completions}) == 2
        assert sorted(comparison.slots.values_list("number", "state")) == [(n, "open") for n in (1, 2, 3)]
    positions = list(round.slots.order_by("position").values_list("number", flat=True))
    assert positions == sorted(positions)


def test_opening_comparisons_twice_adds_nothing(cast):
    round = opened(cast)
    assert open_comparisons(round=round) == open_comparisons(round=round) == 3
    assert (round.comparisons.count(), round.slots.count()) == (3, 6)


@pytest.mark.django_db(transaction=True)
def test_opening_comparisons_by_many_at_once_opens_them_once():
    round = opened(assemble())
    assert together(6, lambda _: open_comparisons(round=round)) == [3] * 6
    assert (Comparison.objects.count(), round.slots.count()) == (3, 6)


def test_only_the_rounds_own_samples_are_compared(cast):
    round = opened(cast)
    stray = add_contestants(cast, "stranger")[0]
    write(round, [stray])
    prompt = round.prompts.first()
    for contestant in round.contestants.all():
        Completion.objects.create(
            prompt=prompt, contestant=contestant, sample_index=99, text=f"{contestant}, in another round"
        )
    open_comparisons(round=round)
    shown = Completion.objects.filter(comparisons__round=round)
    assert shown.count() == 12
    assert not shown.filter(contestant=stray).exists()
    assert not shown.filter(sample_index=99).exists()


def test_equal_and_empty_texts_are_not_offered(cast):
    add_prompts(cast, 1)
    round = draft(cast, samples_per_contestant=2)
    plain, polite, mute = contestants = add_contestants(cast, "plain", "polite", "mute")
    round.contestants.set(contestants)
    freeze_prompts(round=round)
    write(round, contestants, texts={plain.pk: "Yes.", polite.pk: "No.", mute.pk: ""})
    assert open_comparisons(round=round) == 1
    assert sorted(Comparison.objects.get().completions.values_list("text", flat=True)) == ["No.", "Yes."]


def test_a_round_whose_texts_are_all_alike_has_nothing_to_compare(cast):
    add_prompts(cast, 2)
    round = draft(cast)
    contestants = add_contestants(cast, "plain", "polite")
    round.contestants.set(contestants)
    freeze_prompts(round=round)
    write(round, contestants, texts={contestant.pk: "Yes." for contestant in contestants})
    assert open_comparisons(round=round) == 0


# --- the end of ranking ---


def test_ranking_is_over_when_every_slot_is_filled_and_not_before(cast):
    round = open_ranking(cast, comparisons=2, overlap=2)
    for annotator in (cast.anna, cast.ben):
        while (assignment := claim_comparison(project=cast.project, annotator=annotator)) is not None:
            assert not ranking_is_over(round=round)
            judge(assignment)
    assert ranking_is_over(round=round)


def test_ranking_is_over_when_nobody_is_left_who_could_fill_a_slot(cast):
    round = open_ranking(cast, comparisons=2, overlap=3)
    for annotator in (cast.anna, cast.ben):
        while (assignment := claim_comparison(project=cast.project, annotator=annotator)) is not None:
            judge(assignment)
    # Two annotators have judged all there is three slots for.
    assert round.slots.filter(state="open").count() == 2
    assert ranking_is_over(round=round)
    newcomer = User.objects.create(username="newcomer")
    add_member(project=cast.project, user=newcomer, role="annotator")
    assert not ranking_is_over(round=round)
    User.objects.filter(pk=newcomer.pk).update(is_active=False)
    assert ranking_is_over(round=round)


def test_ranking_is_over_when_everybody_has_skipped_what_is_left(cast):
    round = open_ranking(cast, comparisons=1, overlap=1)
    skip_comparison(assignment=claim_comparison(project=cast.project, annotator=cast.anna), reason="")
    assert not ranking_is_over(round=round)
    skip_comparison(assignment=claim_comparison(project=cast.project, annotator=cast.ben), reason="")
    assert ranking_is_over(round=round)


def test_a_lease_keeps_ranking_open_and_one_that_ran_out_does_not_end_it(cast):
    round = open_ranking(cast, comparisons=1, overlap=1)
    skip_comparison(assignment=claim_comparison(project=cast.project, annotator=cast.ben), reason="")
    claim_comparison(project=cast.project, annotator=cast.anna)
    assert not ranking_is_over(round=round)
    Assignment.objects.filter(state="open").update(lease_until=timezone.now() - timedelta(minutes=1))
    expire_leases()
    assert not ranking_is_over(round=round)


def test_a_rehearsal_waits_for_simulated_annotators_and_a_round_of_people_for_people(cast):
    rehearsal = open_ranking(cast, comparisons=1, overlap=1, audience="rehearsal")
    people = open_ranking(cast, comparisons=1, overlap=1, audience="people")
    simulated = add_simulated(cast, 1)[0]
    skip_comparison(assignment=claim_comparison(project=cast.project, annotator=simulated), reason="")
    assert ranking_is_over(round=rehearsal)
    for annotator in (cast.anna, cast.ben):
        skip_comparison(assignment=claim_comparison(project=cast.project, annotator=annotator), reason="")
    assert ranking_is_over(round=people)


def test_a_project_without_annotators_waits_for_them(cast):
    round = open_ranking(cast, comparisons=1)
    cast.project.memberships.filter(role="annotator").delete()
    assert not ranking_is_over(round=round)


def test_closing_closes_what_is_open_or_held_and_counts_it(cast):
    round = open_ranking(cast, comparisons=3, overlap=1)
    filled = judge(claim_comparison(project=cast.project, annotator=cast.anna))
    working = claim_comparison(project=cast.project, annotator=cast.ben)
    assert close_slots(round=round) == 2
    assert close_slots(round=round) == 0
    assert Counter(round.slots.values_list("state", flat=True)) == {"filled": 1, "closed": 2}
    working.refresh_from_db()
    assert working.state == "expired"
    assert filled.is_counted
    assert claim_comparison(project=cast.project, annotator=cast.ben) is None


def test_who_was_working_when_ranking_ended_can_still_send_it_as_surplus(cast):
    round = open_ranking(cast, comparisons=1, overlap=1)
    working = claim_comparison(project=cast.project, annotator=cast.ben)
    close_slots(round=round)
    assert not judge(working).is_counted
    assert Counter(round.slots.values_list("state", flat=True)) == {"closed": 1}


@pytest.mark.django_db(transaction=True)
def test_closing_while_annotators_submit_counts_each_judgment_or_keeps_it_as_surplus():
    cast = assemble()
    annotators = [User.objects.create(username=f"annotator {number}") for number in range(7)]
    for annotator in annotators:
        add_member(project=cast.project, user=annotator, role="annotator")
    round = open_ranking(cast, comparisons=12, completions=2, overlap=2)

    def work(number: int) -> int:
        if number == 7:
            return close_slots(round=round)
        made = 0
        while (
            assignment := claim_comparison(project=cast.project, annotator=annotators[number])
        ) is not None:
            judge(assignment)
            made += 1
        return made

    *made, closed = together(8, work)
    assert Judgment.objects.count() == sum(made)
    counted = Judgment.objects.filter(slot__isnull=False).count()
    # A claim that had its slot before the closing looked at it may have filled it after.
    states = Counter(round.slots.values_list("state", flat=True))
    assert states["filled"] == counted
    assert states["closed"] == closed
    assert states.total() == 24
    assert set(states) <= {"filled", "closed"}


# --- contestants ---


def test_the_same_source_is_the_same_contestant_and_keeps_its_name(cast):
    source = {"project": cast.project, "weights": "w", "decoding": {"top_k": 5, "temperature": 1.0}}
    first = register_contestant(name="First name", **source)
    again = register_contestant(
        name="Second name", **{**source, "decoding": {"temperature": 1.0, "top_k": 5}}
    )
    assert (again.pk, again.name) == (first.pk, "First name")
    different = [
        register_contestant(name="x", **{**source, "weights": "v"}),
        register_contestant(name="x", **{**source, "decoding": {"temperature": 0.5}}),
        register_contestant(name="x", **source, system_prompt="Be brief."),
        register_contestant(name="x", **source, retriever="bm25"),
    ]
    assert len({first.pk, *(contestant.pk for contestant in different)}) == 5


def test_prompts_and_comparisons_of_rounds_cannot_be_deleted_under_judgments(cast):
    open_ranking(cast, comparisons=1)
    judgment = judge(claim_comparison(project=cast.project, annotator=cast.anna))
    for row in (judgment.assignment, judgment.comparison, judgment.slot, cast.anna, Prompt.objects.get()):
        with pytest.raises(ProtectedError):
            row.delete()
