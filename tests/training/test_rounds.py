"""The driver of rounds, without a model: the state machine, its repeats, its failures, its races."""

import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotation.models import Comparison, Judgment, Prompt, Round
from annotation.services.claims import claim_comparison, skip_comparison
from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.cast import add_contestants, add_prompts, add_simulated, assemble
from tests.together import together
from tests.training.stage import (
    PLAN,
    PROMPTS,
    add_base,
    advance,
    draft,
    generate,
    launch,
    rank,
    status_of,
    to_ranking,
    to_training,
    train,
)
from training.demo import SMALLEST, Demo, Sizes
from training.models import (
    Checkpoint,
    Evaluation,
    GenerationJob,
    PreferenceDataset,
    RunInput,
    TrainingRun,
)
from training.services.checkpoints import register_policy
from training.services.rounds import (
    active_round_ids,
    advance_round,
    cancel_round,
    end_ranking,
    launch_round,
    open_next_round,
    open_round,
    shown_together,
)

# --- opening and launching ---


def test_a_round_takes_what_it_is_not_told_from_its_project(cast, base):
    cast.project.overlap, cast.project.completions_per_comparison = 3, 5
    round = draft(cast, base)
    assert (round.status, round.number, round.overlap, round.completions_per_comparison) == ("draft", 1, 3, 5)
    assert draft(cast, base, overlap=1).number == 2


def test_two_openings_with_one_launch_key_make_one_round(cast, base):
    key = uuid.uuid4()
    asked = {"training_plan": PLAN, "deadline": timezone.now() + timedelta(days=1)}
    first = draft(cast, base, launch_key=key, **asked)
    assert draft(cast, base, launch_key=key, **asked) == first
    assert Round.objects.get() == first
    assert draft(cast, base, launch_key=uuid.uuid4()).number == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Again"}, "name"),
        ({"overlap": 3}, "overlap"),
        ({"train_prompts": 7, "held_out_prompts": 7}, "train prompts, held out prompts"),
        ({"training_plan": [{"method": "dpo", "options": {"beta": 0.2}}]}, "training plan"),
        ({"contestants": "one"}, "contestants"),
        ({"kind": "demonstration", "contestants": []}, "kind, overlap, held out prompts, contestants"),
    ],
)
def test_a_launch_key_that_comes_with_other_content_is_a_conflict(cast, base, changes, said):
    key = uuid.uuid4()
    first = draft(cast, base, launch_key=key)
    if changes.get("contestants") == "one":
        changes = {"contestants": [register_policy(checkpoint=base)]}
    with pytest.raises(Conflict, match=f"opened round 1, which differs in {said} from what is asked for now"):
        draft(cast, base, launch_key=key, **changes)
    assert Round.objects.get() == first


def test_a_demo_goes_on_with_the_rounds_of_an_earlier_one_whatever_its_sizes(cast, base):
    demo = Demo(base_url="", model=Path(), sizes=Sizes(), tell=lambda *_: None)
    demo.project, demo.researcher = cast.project, cast.researcher
    writers = list(draft(cast, base).contestants.all())
    first = demo._open_first_round(writers)
    demo.sizes = SMALLEST
    assert demo._open_first_round(writers) == first


@pytest.mark.django_db(transaction=True)
def test_openings_and_launches_by_many_at_once_make_one_round(stored, tmp_path):
    cast = assemble()
    base = add_base(cast, tmp_path / "base")
    add_prompts(cast, 4)
    draft(cast, base)  # registers the contestants
    key = uuid.uuid4()

    def open_and_launch(_: int) -> int:
        round = draft(cast, base, launch_key=key)
        launch(round)
        advance_round(round_id=round.pk)
        return round.pk

    assert len(set(together(8, open_and_launch))) == 1
    assert Counter(Round.objects.values_list("status", flat=True)) == {"draft": 1, "generating": 1}
    assert GenerationJob.objects.count() == 1
    assert AuditEvent.objects.filter(action="round launched").count() == 1


@pytest.mark.django_db(transaction=True)
def test_rounds_opened_by_many_at_once_are_numbered_without_gaps(stored, tmp_path):
    cast = assemble()
    base = add_base(cast, tmp_path / "base")
    draft(cast, base)
    numbers = together(6, lambda _: draft(cast, base).number)
    assert sorted(numbers) == [2, 3, 4, 5, 6, 7]


def test_a_launch_key_stands_for_one_round_even_past_the_service(cast, base):
    key = uuid.uuid4()
    draft(cast, base, launch_key=key)
    with pytest.raises(IntegrityError, match="one_round_per_launch_key"), transaction.atomic():
        Round.objects.create(project=cast.project, number=9, name="Ninth", launch_key=key)


@pytest.mark.parametrize(
    ("changes", "refusal", "said"),
    [
        ({"contestants": []}, Refused, "at least one contestant"),
        ({"training_plan": [{"method": "magic"}]}, Refused, "unknown method"),
        (
            {"training_plan": [{"method": "dpo", "options": {"beta": 99}}]},
            Refused,
            "beta is 99.0, out of range",
        ),
        ({"overlap": 0}, ValidationError, "greater than or equal to 1"),
        ({"overlap": 21}, ValidationError, "less than or equal to 20"),
        ({"completions_per_comparison": 9}, ValidationError, "less than or equal to 8"),
        ({"samples_per_contestant": 9}, ValidationError, "less than or equal to 8"),
        ({"audience": "everybody"}, ValidationError, "not a valid choice"),
        ({"train_prompts": -1}, ValidationError, "greater than or equal to 0"),
    ],
)
def test_a_round_that_cannot_work_is_refused_and_nothing_is_kept(cast, base, changes, refusal, said):
    with pytest.raises(refusal, match=said):
        draft(cast, base, **changes)
    assert not Round.objects.exists()


def test_one_completion_cannot_be_compared(cast, base):
    alone = {"contestants": [register_policy(checkpoint=base)]}
    with pytest.raises(Refused, match="One completion can't be compared"):
        draft(cast, base, **alone, samples_per_contestant=1)
    assert draft(cast, base, **alone, samples_per_contestant=2).contestants.count() == 1


def test_contestants_of_another_project_or_without_a_model_are_refused(cast, base):
    other = open_project(slug="coffee", name="Coffee", user=cast.admin)
    with pytest.raises(Refused, match="belongs to another project"):
        open_round(project=other, user=cast.admin, name="", contestants=[register_policy(checkpoint=base)])
    with pytest.raises(Refused, match="has no checkpoint"):
        draft(cast, base, contestants=add_contestants(cast, "a person", "an import"))


def test_launching_freezes_the_prompts_and_again_does_nothing(cast, round):
    launch(round)
    chosen = set(round.prompts.all())
    assert (status_of(round), len(chosen)) == ("generating", PROMPTS)
    add_prompts(cast, PROMPTS + 5)
    launch(round)
    launch_round(round=Round.objects.get(pk=round.pk), user=cast.admin)
    assert set(round.prompts.all()) == chosen
    assert AuditEvent.objects.filter(action="round launched").count() == 1


def test_a_round_without_prompts_cannot_be_launched(cast, base):
    round = draft(cast, base)
    with pytest.raises(Refused, match="no prompt for this round"):
        launch(round)
    assert status_of(round) == "draft"


def test_a_cancelled_draft_cannot_be_launched(cast, round):
    cancel_round(round=round, user=cast.researcher)
    round.refresh_from_db()
    with pytest.raises(Conflict, match="cancelled"):
        launch(round)


# --- carrying on ---


def test_a_round_carries_itself_from_launch_to_close(cast, base, round, tmp_path):
    launch(round)
    assert advance(round) == "generating"
    assert advance(round) == "generating"
    job = GenerationJob.objects.get()
    assert (job.base, set(job.contestants.all())) == (base, set(round.contestants.all()))
    generate(round)
    assert advance(round) == "ranking"
    comparisons = set(Comparison.objects.all())
    assert advance(round) == "ranking"
    assert set(Comparison.objects.all()) == comparisons
    rank(cast, [cast.anna])
    assert advance(round) == "ranking"
    rank(cast, [cast.ben])
    assert advance(round) == "training"
    assert advance(round) == "training"
    assert list(round.runs.order_by("created_at").values_list("step", flat=True)) == ["reward", "dpo"]
    train(round, tmp_path)
    assert (advance(round), round.failure) == ("closed", "")
    assert advance(round) == "closed"
    assert active_round_ids() == []


def test_every_run_names_its_inputs(cast, base, round):
    to_training(cast, round)
    dataset = PreferenceDataset.objects.get()
    for run in round.runs.all():
        inputs = {item.role: item.checkpoint or item.dataset for item in run.inputs.all()}
        assert inputs == {"base": base, "data": dataset}
        assert run.recipe["options"]["steps"] > 0
        assert run.code_version


def test_a_policy_goes_on_from_the_policy_that_was_judged_and_a_reward_model_from_the_base(cast, base):
    add_prompts(cast, PROMPTS)
    policy = Checkpoint.objects.create(
        project=cast.project, name="p", kind="policy", digest="d" * 64, base=base
    )
    contestants = [register_policy(checkpoint=base), register_policy(checkpoint=policy)]
    round = draft(cast, base, contestants=contestants, training_plan=PLAN)
    to_training(cast, round)
    parents = RunInput.objects.filter(role="parent")
    assert [(item.run.step, item.checkpoint) for item in parents] == [("dpo", policy)]
    assert set(RunInput.objects.filter(role="base").values_list("checkpoint", flat=True)) == {base.pk}


def test_an_empty_plan_goes_from_ranking_straight_to_its_figures(cast, base):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base)
    to_ranking(round)
    rank(cast, [cast.anna, cast.ben])
    assert advance(round) == "closed"
    assert not TrainingRun.objects.exists()
    assert not PreferenceDataset.objects.exists()
    newest = round.contestants.order_by("-pk").first()
    measured = Evaluation.objects.get()
    assert (measured.contestant, measured.round) == (newest, round)
    assert Round.objects.count() == 1


def test_figures_are_of_held_out_prompts_alone(cast, base):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base)
    to_ranking(round)
    rank(cast, [cast.anna, cast.ben])
    advance(round)
    held_out = Prompt.objects.filter(split="held_out").count()
    result = Evaluation.objects.get().result
    assert (result["prompts"], result["source"], result["judgments"]) == (held_out, "person", 2 * held_out)


def test_figures_of_a_rehearsal_come_from_simulated_judgments(cast, base):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, audience="rehearsal")
    to_ranking(round)
    rank(cast, add_simulated(cast))
    assert advance(round) == "closed"
    result = Evaluation.objects.get().result
    assert (result["source"], result["annotators"]) == ("rehearsal", 2)


def test_measuring_twice_keeps_the_first_figures(cast, base):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base)
    to_ranking(round)
    rank(cast, [cast.anna, cast.ben])
    advance(round)
    before = list(Evaluation.objects.values())
    Round.objects.update(status="evaluating")
    assert advance(round) == "closed"
    assert list(Evaluation.objects.values()) == before


def test_the_trained_policy_meets_its_parent_in_one_draft_on_held_out_prompts(cast, base, round, tmp_path):
    to_training(cast, round)
    train(round, tmp_path)
    assert advance(round) == "closed"
    following = Round.objects.get(number=2)
    policy = Checkpoint.objects.get(kind="policy")
    plain = round.contestants.get(system_prompt="")
    assert set(following.contestants.all()) == {plain, policy.contestants.get()}
    assert (following.status, following.train_prompts, following.training_plan) == ("draft", 0, [])
    assert (following.audience, following.completions_per_comparison) == ("people", 4)  # two of each
    assert open_next_round(round=round) == following
    Round.objects.filter(pk=following.pk).update(priority=5)
    assert open_next_round(round=round) == following  # whatever has become of it since
    Round.objects.filter(pk=round.pk).update(status="evaluating")
    advance(round)
    assert Round.objects.count() == 2
    launch(following)
    assert {prompt.split for prompt in following.prompts.all()} == {"held_out"}
    assert following.first_sample == round.first_sample + round.samples_per_contestant


@pytest.mark.parametrize(("contestants", "together"), [(2, 4), (4, 8), (5, 5), (9, 8)])
def test_a_comparison_of_policies_shows_as_many_of_each(contestants, together):
    assert shown_together(contestants) == together


def test_a_round_that_trained_no_policy_opens_no_next_one(cast, base, tmp_path):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, training_plan=PLAN[:1])
    to_training(cast, round)
    train(round, tmp_path)
    assert advance(round) == "closed"
    assert open_next_round(round=round) is None
    assert Evaluation.objects.filter(checkpoint__kind="reward").count() == 1


def test_completions_that_are_there_already_are_not_made_again(cast, round, base):
    to_ranking(round)
    again = draft(cast, base, name="The same texts", first_sample=round.first_sample)
    launch(again)
    assert advance(again) == "ranking"
    assert not again.generation_jobs.exists()
    assert again.comparisons.count() == round.comparisons.count()


def test_a_deadline_ends_ranking_and_what_is_left_is_closed(cast, round):
    to_ranking(round)
    Round.objects.filter(pk=round.pk).update(deadline=timezone.now() + timedelta(hours=1))
    rank(cast, [cast.anna])
    assert advance(round) == "ranking"
    Round.objects.filter(pk=round.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    assert advance(round) == "training"
    states = Counter(round.slots.values_list("state", flat=True))
    assert states == {"filled": PROMPTS, "closed": PROMPTS}


def test_ranking_ends_when_everybody_has_skipped_the_rest(cast, round):
    to_ranking(round)
    rank(cast, [cast.anna])
    while (assignment := claim_comparison(project=cast.project, annotator=cast.ben)) is not None:
        skip_comparison(assignment=assignment, reason="")
    assert advance(round) == "training"


def test_a_researcher_may_end_ranking_by_a_button_once(cast, round):
    to_ranking(round)
    rank(cast, [cast.anna])
    end_ranking(round=round, user=cast.researcher)
    assert AuditEvent.objects.get(action="ranking ended").details == {"closed": PROMPTS}
    assert advance(round) == "training"
    with pytest.raises(Conflict, match="not being ranked"):
        end_ranking(round=round, user=cast.researcher)


def test_a_rehearsal_is_trained_on_simulated_judgments_alone(cast, base):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, training_plan=PLAN, audience="rehearsal")
    to_training(cast, round, add_simulated(cast))
    assert PreferenceDataset.objects.get().sources == ["rehearsal"]
    assert set(Judgment.objects.values_list("source", flat=True)) == {"rehearsal"}


PLAN_WITH_PPO = [{"method": "reward"}, {"method": "dpo"}, {"method": "ppo"}]


def test_a_run_that_needs_a_reward_model_waits_until_the_round_has_trained_it(cast, base, tmp_path):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, training_plan=PLAN_WITH_PPO)
    to_training(cast, round)
    assert set(round.runs.values_list("step", flat=True)) == {"reward", "dpo"}
    assert advance(round) == "training"
    assert round.runs.count() == 2  # still at work: asked again, it waits again
    train(round, tmp_path / "first")
    assert advance(round) == "training"
    ppo = round.runs.get(step="ppo")
    judge = ppo.inputs.get(role=RunInput.Role.REWARD_MODEL).checkpoint
    assert judge == Checkpoint.objects.get(run__step="reward")
    assert ppo.inputs.get(role="data").dataset == round.runs.get(step="dpo").inputs.get(role="data").dataset
    train(round, tmp_path / "second")
    assert advance(round) == "closed"
    following = Round.objects.get(status=Round.Status.DRAFT)
    assert following.contestants.filter(checkpoints__run__step__in=["dpo", "ppo"]).count() == 2
    assert following.completions_per_comparison == 6  # two of each: the parent and both policies


def test_a_step_that_would_only_be_measured_by_a_reward_model_waits_for_it_and_does_without(
    cast, base, tmp_path
):
    add_prompts(cast, PROMPTS)
    plan = [{"method": "reward"}, {"method": "dpo", "reward_model": "reward"}]
    round = draft(cast, base, training_plan=plan)
    to_training(cast, round)
    assert set(round.runs.values_list("step", flat=True)) == {"reward"}
    round.runs.update(status="cancelled")
    advance(round)
    dpo = round.runs.get(step="dpo")
    assert (round.failure, dpo.status) == ("", "queued")
    assert not dpo.inputs.filter(role=RunInput.Role.REWARD_MODEL).exists()


def test_without_a_reward_model_the_round_stops_and_says_what_to_do(cast, base, tmp_path):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, training_plan=PLAN_WITH_PPO)
    to_training(cast, round)
    round.runs.filter(step="reward").update(status="cancelled")
    train(round, tmp_path)
    advance(round)
    assert "learns from the reward model of step reward, which trained none" in round.failure
    assert not round.runs.filter(step="ppo").exists()


def test_a_plan_without_a_reward_step_takes_the_newest_reward_model_of_the_base(cast, base, tmp_path):
    add_prompts(cast, PROMPTS)
    alone = draft(cast, base, training_plan=[{"method": "ppo"}])
    to_ranking(alone)
    rank(cast, [cast.anna, cast.ben])
    advance(alone)
    assert "the project has none on tiny" in alone.failure

    judged = draft(cast, base, training_plan=[{"method": "reward"}])
    to_training(cast, judged)
    train(judged, tmp_path)
    advance(judged)
    Round.objects.filter(pk=alone.pk).update(failure="")
    assert advance(alone) == "training"
    judge = alone.runs.get().inputs.get(role=RunInput.Role.REWARD_MODEL).checkpoint
    assert judge == Checkpoint.objects.get(run__round=judged)
