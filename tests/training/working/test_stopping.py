"""A worker that is asked to stop, shuts down, or has lost its lease while its recipe works."""

import pytest

from tests.training.stub import wait_until
from tests.training.working.stage import wait_for_the_worker
from training import worker
from training.models import TrainingRun, WorkStatus
from training.services.work import request_cancel

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_cancelled_run_saves_and_stops(working):
    request_cancel(working)
    wait_for_the_worker(working)
    working.refresh_from_db()
    assert working.status == WorkStatus.CANCELLED
    assert working.result["kind"] == "interrupted"


def test_a_cancelled_run_that_does_not_stop_in_time_is_ended_and_says_so(deaf):
    request_cancel(deaf)
    wait_for_the_worker(deaf)
    deaf.refresh_from_db()
    assert deaf.status == WorkStatus.CANCELLED
    assert "had not stopped 0.1 seconds after it was asked to" in deaf.error


def test_a_worker_that_shuts_down_gives_the_run_back_without_costing_an_attempt(working):
    worker.shutting_down.set()
    try:
        wait_for_the_worker(working)
    finally:
        worker.shutting_down.clear()
    limit = working.attempt_limit
    working.refresh_from_db()
    assert (working.status, working.lease_until) == (WorkStatus.QUEUED, None)
    assert working.attempt_limit == limit + 1


def test_a_worker_that_lost_its_lease_ends_its_recipe_and_writes_nothing(working):
    TrainingRun.objects.filter(pk=working.pk).update(attempt=2, worker="another", progress={"step": 7})
    before = TrainingRun.objects.values().get(pk=working.pk)
    wait_for_the_worker(working)
    assert TrainingRun.objects.values().get(pk=working.pk) == before


def test_a_lease_is_renewed_while_the_recipe_works(working):
    first = TrainingRun.objects.get(pk=working.pk).lease_until
    wait_until(lambda: TrainingRun.objects.get(pk=working.pk).lease_until > first, "a heartbeat")
