"""Rounds that fail, are retried, skipped or cancelled, and rounds that many processes carry on at once."""

import pytest

from annotation.models import Comparison, Completion, Contestant, Judgment, Round, Slot
from annotation.services.claims import claim_comparison
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict
from tests.cast import add_prompts, assemble
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
from training.models import (
    Checkpoint,
    Evaluation,
    GenerationJob,
    PreferenceDataset,
    RunInput,
    TrainingRun,
    WorkStatus,
)
from training.services import rounds
from training.services.rounds import (
    active_round_ids,
    advance_round,
    cancel_round,
    end_ranking,
    retry_step,
    skip_step,
)
from training.services.steering import continue_run
from training.services.work import claim_work, end_work


def fail(work) -> None:
    held = claim_work(type(work), work.pk, worker="by hand")
    end_work(held, WorkStatus.FAILED, error="Out of memory. Lower batch_size.")


def test_a_failed_job_stops_the_round_with_its_reason_until_it_is_retried(cast, round):
    launch(round)
    advance(round)
    job = round.generation_jobs.get()
    fail(job)
    assert advance(round) == "generating"
    assert "Out of memory" in round.failure
    assert active_round_ids() == []
    retry_step(round=round, user=cast.researcher)
    round.refresh_from_db()
    job.refresh_from_db()
    assert (round.failure, job.status, active_round_ids()) == ("", WorkStatus.QUEUED, [round.pk])
    generate(round)
    assert advance(round) == "ranking"


def test_a_failed_run_can_be_skipped_and_the_others_go_on(cast, round, tmp_path):
    to_training(cast, round)
    fail(round.runs.get(step="reward"))
    assert advance(round) == "training"
    assert round.failure.startswith("Reward of ")
    skip_step(round=round, user=cast.researcher)
    assert round.runs.get(step="reward").status == WorkStatus.CANCELLED
    assert advance(round) == "training"
    train(round, tmp_path)
    assert advance(round) == "closed"
    assert list(Checkpoint.objects.filter(run__round=round).values_list("kind", flat=True)) == ["policy"]


def test_a_run_that_goes_on_before_its_failure_is_noted_lets_its_round_go_on(
    cast, round, monkeypatch, tmp_path
):
    to_training(cast, round)
    run = round.runs.get(step="reward")
    fail(run)
    note = rounds._note_failure

    def too_late(*args, **kwargs) -> None:
        continue_run(run=run, user=cast.researcher)
        note(*args, **kwargs)

    monkeypatch.setattr(rounds, "_note_failure", too_late)
    assert advance(round) == "training"
    assert (round.failure, active_round_ids()) == ("", [round.pk])
    monkeypatch.undo()
    train(round, tmp_path)
    assert advance(round) == "closed"


def test_a_failed_run_is_the_reason_and_not_that_what_learns_from_it_has_nothing_to_learn_from(cast, base):
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, training_plan=[{"method": "reward"}, {"method": "ppo"}])
    to_training(cast, round)
    fail(round.runs.get(step="reward"))
    advance(round)
    assert round.failure.startswith("Reward of First failed. Out of memory.")


def test_a_step_that_cannot_go_on_leaves_its_reason_and_can_be_skipped(cast, round):
    to_ranking(round)
    end_ranking(round=round, user=cast.researcher)
    assert advance(round) == "training"
    assert "nothing to freeze" in round.failure
    retry_step(round=round, user=cast.researcher)
    assert advance(round) == "training"
    assert "nothing to freeze" in round.failure
    skip_step(round=round, user=cast.researcher)
    assert advance(round) == "closed"


def test_texts_that_are_all_alike_are_told_as_the_reason(cast, round):
    launch(round)
    advance(round)
    generate(round)
    Completion.objects.update(text="Yes.")
    assert advance(round) == "generating"
    assert "No prompt has two different completions" in round.failure


def test_an_error_of_ours_leaves_its_name_on_the_round_and_rises(cast, round, monkeypatch):
    launch(round)

    def broken(**_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(rounds, "queue_generation", broken)
    with pytest.raises(ZeroDivisionError):
        advance(round)
    assert status_of(round) == "generating"
    assert round.failure == "ZeroDivisionError: by zero"


def test_nothing_is_retried_or_skipped_where_nothing_has_failed(cast, round):
    launch(round)
    for step in (retry_step, skip_step):
        with pytest.raises(Conflict, match="Nothing has failed"):
            step(round=round, user=cast.researcher)
    assert status_of(round) == "generating"


@pytest.mark.parametrize("phase", ["draft", "generating", "ranking", "training"])
def test_a_round_is_cancelled_from_any_phase_and_stays_so(cast, round, phase):
    if phase == "generating":
        launch(round)
        advance(round)
    elif phase == "ranking":
        to_ranking(round)
    elif phase == "training":
        to_training(cast, round)
    judgments = Judgment.objects.count()
    assert status_of(round) == phase
    cancel_round(round=round, user=cast.researcher)
    cancel_round(round=round, user=cast.researcher)
    assert advance(round) == "cancelled"
    work = [*GenerationJob.objects.all(), *TrainingRun.objects.all()]
    assert {item.status for item in work} <= {WorkStatus.CANCELLED, WorkStatus.SUCCEEDED}
    assert not Slot.objects.filter(state__in=["open", "held"]).exists()
    assert claim_comparison(project=cast.project, annotator=cast.anna) is None
    assert Judgment.objects.count() == judgments
    assert AuditEvent.objects.filter(action="round cancelled").count() == 1


def test_running_work_of_a_cancelled_round_is_asked_to_stop(cast, round):
    launch(round)
    advance(round)
    job = round.generation_jobs.get()
    claim_work(GenerationJob, job.pk, worker="by hand")
    cancel_round(round=round, user=cast.researcher)
    job.refresh_from_db()
    assert job.status == WorkStatus.CANCELLING


def test_a_closed_round_is_not_cancelled(cast, round):
    Round.objects.update(status="closed")
    cancel_round(round=round, user=cast.researcher)
    assert status_of(round) == "closed"


# --- at once ---


@pytest.mark.django_db(transaction=True)
def test_a_round_advanced_by_many_at_once_goes_the_way_it_goes_alone(stored, tmp_path):
    cast = assemble()
    base = add_base(cast, tmp_path / "base")
    add_prompts(cast, PROMPTS)
    round = draft(cast, base, training_plan=PLAN)
    launch(round)

    def all_advance() -> str:
        together(6, lambda _: advance_round(round_id=round.pk))
        return status_of(round)

    assert (all_advance(), GenerationJob.objects.count()) == ("generating", 1)
    generate(round)
    assert (all_advance(), round.failure) == ("ranking", "")
    assert (Comparison.objects.count(), Slot.objects.count()) == (PROMPTS, 2 * PROMPTS)
    rank(cast, [cast.anna, cast.ben])
    assert (all_advance(), round.failure) == ("training", "")
    assert (PreferenceDataset.objects.count(), TrainingRun.objects.count()) == (1, 2)
    assert RunInput.objects.count() == 4
    train(round, tmp_path)
    assert (all_advance(), round.failure) == ("closed", "")
    assert Round.objects.count() == 2
    assert Evaluation.objects.count() == 2
    assert Contestant.objects.count() == 3


@pytest.mark.parametrize("step", ["queue_generation", "queue_training"])
def test_a_round_cancelled_while_it_is_carried_on_queues_nothing(cast, round, monkeypatch, step):
    if step == "queue_generation":
        launch(round)
    else:
        to_ranking(round)
        rank(cast, [cast.anna, cast.ben])
    queue = getattr(rounds, step)

    def cancelled_just_before(**inputs):
        cancel_round(round=round, user=cast.researcher)
        return queue(**inputs)

    monkeypatch.setattr(rounds, step, cancelled_just_before)
    assert advance(round) == "cancelled"
    assert not TrainingRun.objects.exists()
    assert not GenerationJob.objects.exclude(status=WorkStatus.SUCCEEDED).exists()
