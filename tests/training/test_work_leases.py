"""Long work is a row held by a lease: one holder, and nothing written by an attempt that lost it."""

import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from annotation.models import Completion
from rankloop.accounts.models import User
from tests.cast import Cast, add_prompts, assemble
from tests.together import outcome_of, together
from tests.training.stage import add_base, draft
from tests.training.stub import wait_until
from training import worker
from training.models import GenerationJob, TrainingRun, WorkStatus
from training.services.rounds import advance_round, launch_round
from training.services.work import (
    LeaseLost,
    claim_work,
    end_work,
    give_back,
    lock_held,
    renew_work,
    request_cancel,
    requeue,
    return_lost,
    to_claim,
    write_held,
)


def queue_a_job(cast: Cast, base) -> GenerationJob:
    add_prompts(cast, 3)
    round = draft(cast, base)
    launch_round(round=round, user=cast.researcher)
    advance_round(round_id=round.pk)
    return round.generation_jobs.get()


@pytest.fixture
def job(cast, base) -> GenerationJob:
    return queue_a_job(cast, base)


def claim(job: GenerationJob) -> GenerationJob | None:
    return claim_work(GenerationJob, job.pk, worker="w")


def let_lease_run_out(job: GenerationJob) -> None:
    GenerationJob.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def again(job: GenerationJob) -> GenerationJob:
    return GenerationJob.objects.get(pk=job.pk)


def test_work_is_claimed_once(job):
    held = claim(job)
    assert (held.status, held.attempt, held.worker) == (WorkStatus.RUNNING, 1, "w")
    assert held.lease_until > timezone.now()
    assert claim(job) is None


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_who_claim_at_once_one_gets_it(stored, tmp_path):
    cast = assemble()
    job = queue_a_job(cast, add_base(cast, tmp_path / "base"))
    claims = together(8, lambda _: claim(job))
    assert sum(held is not None for held in claims) == 1
    assert again(job).attempt == 1


def test_renewing_moves_the_end_of_the_lease_and_tells_of_a_cancellation(job):
    held = claim(job)
    let_lease_run_out(job)
    assert renew_work(held) is False
    assert again(job).lease_until > timezone.now()
    request_cancel(held)
    assert renew_work(held) is True
    assert again(job).status == WorkStatus.CANCELLING


def test_a_lease_that_ran_out_goes_back_to_the_queue_once(job):
    claim(job)
    assert return_lost(GenerationJob) == 0
    let_lease_run_out(job)
    assert return_lost(GenerationJob) == 1
    assert return_lost(GenerationJob) == 0
    assert return_lost(TrainingRun) == 0
    assert (again(job).status, again(job).lease_until) == (WorkStatus.QUEUED, None)


def test_an_attempt_that_lost_its_lease_writes_nothing_any_more(job):
    dead = claim(job)
    let_lease_run_out(job)
    return_lost(GenerationJob)
    alive = claim(job)
    assert alive.attempt == 2
    before = GenerationJob.objects.values().get(pk=job.pk)

    def lock() -> None:
        with transaction.atomic():
            lock_held(dead)

    attempts = [
        lambda: write_held(dead, progress={"step": 9}),
        lambda: renew_work(dead),
        lambda: end_work(dead, WorkStatus.SUCCEEDED, result={"ok": True}),
        lock,
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            attempt()
    assert GenerationJob.objects.values().get(pk=job.pk) == before
    end_work(alive, WorkStatus.SUCCEEDED, result={"ok": True})
    assert (again(job).status, again(job).lease_until) == (WorkStatus.SUCCEEDED, None)


def test_a_lease_returned_but_not_taken_is_lost_too(job):
    dead = claim(job)
    let_lease_run_out(job)
    return_lost(GenerationJob)
    with pytest.raises(LeaseLost):
        end_work(dead, WorkStatus.SUCCEEDED)
    assert again(job).status == WorkStatus.QUEUED


class Lines:
    """A recipe that has written one completion."""

    def __init__(self, job: GenerationJob) -> None:
        self.line = {
            "prompt": str(job.round.prompts.first().pk),
            "contestant": str(job.contestants.first().pk),
            "sample": 0,
            "text": "Four\x00 minutes.",
            "finished": True,
            "tokens": 3,
            "batch": 0,
            "seed": 5,
        }

    def read_lines(self, name: str) -> list[dict]:
        assert name == "completions.jsonl"
        return [self.line]


def test_completions_of_a_dead_attempt_are_not_taken_in(job):
    dead = claim(job)
    let_lease_run_out(job)
    return_lost(GenerationJob)
    alive = claim(job)
    with pytest.raises(LeaseLost):
        worker._take_in_completions(dead, Lines(job))
    assert not Completion.objects.exists()
    worker._take_in_completions(alive, Lines(job))
    worker._take_in_completions(alive, Lines(job))
    completion = Completion.objects.get()
    assert (completion.text, completion.job, completion.seed) == ("Four minutes.", job.pk, 5)


def test_work_whose_worker_dies_every_time_fails_and_says_so(job):
    for attempt in range(1, job.attempt_limit + 1):
        assert claim(job).attempt == attempt
        let_lease_run_out(job)
        return_lost(GenerationJob)
    assert again(job).status == WorkStatus.FAILED
    assert "died in every attempt" in again(job).error
    assert claim(job) is None


def test_failed_work_that_is_queued_again_gets_as_many_attempts_as_at_first(job, settings):
    for _ in range(job.attempt_limit):
        claim(job)
        let_lease_run_out(job)
        return_lost(GenerationJob)
    requeue(job)
    row = again(job)
    assert (row.status, row.error, row.ended_at) == (WorkStatus.QUEUED, "", None)
    assert row.attempt_limit == row.attempt + settings.MAX_ATTEMPTS
    assert claim(job).attempt == settings.MAX_ATTEMPTS + 1


def test_only_what_is_over_without_success_can_be_queued_again(job):
    requeue(job)
    assert again(job).attempt_limit == job.attempt_limit
    held = claim(job)
    requeue(job)
    assert again(job).status == WorkStatus.RUNNING
    end_work(held, WorkStatus.SUCCEEDED)
    requeue(job)
    assert again(job).status == WorkStatus.SUCCEEDED


def test_cancelling_ends_queued_work_at_once_and_asks_running_work(job):
    request_cancel(job)
    assert again(job).status == WorkStatus.CANCELLED
    assert claim(job) is None
    requeue(job)
    held = claim(job)
    request_cancel(job)
    assert again(job).status == WorkStatus.CANCELLING
    end_work(held, WorkStatus.CANCELLED)
    request_cancel(job)
    assert again(job).status == WorkStatus.CANCELLED


def test_work_that_was_being_cancelled_when_its_worker_died_is_cancelled(job):
    claim(job)
    request_cancel(job)
    let_lease_run_out(job)
    assert return_lost(GenerationJob) == 1
    assert again(job).status == WorkStatus.CANCELLED


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_ends_and_a_sweep_at_the_same_moment_agree(stored, tmp_path):
    cast = assemble()
    job = queue_a_job(cast, add_base(cast, tmp_path / "base"))
    for _ in range(10):
        GenerationJob.objects.filter(pk=job.pk).update(status=WorkStatus.QUEUED, attempt=0)
        held = claim(job)
        let_lease_run_out(job)

        def race(number: int, held: GenerationJob = held):
            if number:
                return return_lost(GenerationJob)
            return outcome_of(lambda: end_work(held, WorkStatus.SUCCEEDED), LeaseLost)

        ended, returned = together(2, race)
        row = again(job)
        if isinstance(ended, LeaseLost):
            assert (row.status, returned) == (WorkStatus.QUEUED, 1)
        else:
            assert (row.status, returned) == (WorkStatus.SUCCEEDED, 0)


def test_waiting_rows_are_rung_for_only_while_a_worker_is_idle(cast, job, base):
    assert to_claim(GenerationJob, 1) == [job]
    assert to_claim(TrainingRun, 1) == []
    held = claim(job)
    assert to_claim(GenerationJob, 1) == []
    request_cancel(job)
    assert to_claim(GenerationJob, 1) == []
    end_work(held, WorkStatus.CANCELLED)
    assert to_claim(GenerationJob, 1) == []


def test_as_many_are_rung_for_as_workers_are_idle(cast):
    first, second, third = (
        TrainingRun.objects.create(project=cast.project, step=name, method="dpo") for name in ("a", "b", "c")
    )
    assert to_claim(TrainingRun, 2) == [first, second]
    claim_work(TrainingRun, first.pk, worker="one")
    assert to_claim(TrainingRun, 2) == [second]
    assert to_claim(TrainingRun, 3) == [second, third]
    assert to_claim(TrainingRun, 1) == []


def test_the_higher_priority_is_claimed_first_then_the_older_and_a_draft_never(cast, base):
    def add(name: str, priority: int, status: str = WorkStatus.QUEUED) -> TrainingRun:
        return TrainingRun.objects.create(
            project=cast.project, step=name, method="dpo", priority=priority, status=status
        )

    add("later", 0)
    older, newer = add("urgent, older", 5), add("urgent, newer", 5)
    unlaunched = add("not launched", 9, WorkStatus.DRAFT)
    for expected in (older, newer):
        assert to_claim(TrainingRun, 1) == [expected]
        end_work(claim_work(TrainingRun, expected.pk, worker="w"), WorkStatus.SUCCEEDED)
    assert to_claim(TrainingRun, 1)[0].step == "later"
    assert claim_work(TrainingRun, unlaunched.pk, worker="w") is None
    assert return_lost(TrainingRun) == 0
    requeue(unlaunched)
    unlaunched.refresh_from_db()
    assert (unlaunched.status, unlaunched.is_over) == (WorkStatus.DRAFT, False)
    request_cancel(unlaunched)
    unlaunched.refresh_from_db()
    assert unlaunched.status == WorkStatus.CANCELLED


def test_work_given_back_is_queued_unless_a_person_wants_it_cancelled(job):
    held = claim(job)
    give_back(held, error="again")
    row = again(job)
    assert (row.status, row.lease_until, row.ended_at, row.error) == (WorkStatus.QUEUED, None, None, "again")
    with pytest.raises(LeaseLost):
        give_back(held)
    held = claim(job)
    request_cancel(job)  # after the worker last looked
    give_back(held)
    assert again(job).status == WorkStatus.CANCELLED
    assert again(job).ended_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_worker_stopped_in_a_transaction_holds_up_no_other_and_is_undone(stored, tmp_path, settings):
    cast = assemble()
    stopped = queue_a_job(cast, add_base(cast, tmp_path / "base"))
    other = TrainingRun.objects.create(project=cast.project, step="other", method="dpo")
    held = claim(stopped)
    claim_work(TrainingRun, other.pk, worker="w")
    let_lease_run_out(stopped)
    settings.WORK_LEASE_SECONDS = 0.5
    locked, go_on = threading.Event(), threading.Event()

    def stop_while_it_writes() -> None:
        try:
            with transaction.atomic():
                lock_held(held)
                end_work(held, WorkStatus.SUCCEEDED)
                locked.set()
                go_on.wait(30)
        except DatabaseError:
            pass  # the database has ended it
        finally:
            connection.close()

    thread = threading.Thread(target=stop_while_it_writes)
    thread.start()
    try:
        assert locked.wait(30)
        assert return_lost(GenerationJob) == 0  # at once: it does not wait for the lock
        wait_until(lambda: return_lost(GenerationJob) == 1, "the end of the idle transaction")
    finally:
        go_on.set()
        thread.join()
    assert again(stopped).status == WorkStatus.QUEUED


def test_a_row_is_no_ones_work_when_it_does_not_exist(db):
    assert claim_work(GenerationJob, "00000000-0000-4000-8000-000000000000", worker="w") is None
    assert not User.objects.exists()
