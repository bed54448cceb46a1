"""Runs and generation jobs by API: their state, curves and logs, and stopping one."""

import uuid

import pytest

from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from tests.api import Caller, all_pages
from tests.training.stage import advance, launch, to_training, train
from training.models import GenerationJob, RunMetric, TrainingRun, WorkStatus
from training.selectors import runs
from training.worker import attempt_folder

pytestmark = pytest.mark.django_db

RUNS = "/api/v1/projects/tea/runs"
JOBS = "/api/v1/projects/tea/jobs"
BOTH_WAYS = pytest.mark.parametrize("by", ["token", "session"])


@pytest.fixture
def researcher(cast) -> Caller:
    return Caller(cast.researcher)


@pytest.fixture
def run(cast) -> TrainingRun:
    """A run that a worker has claimed twice."""
    return TrainingRun.objects.create(
        project=cast.project, step="dpo", method="dpo", status=WorkStatus.RUNNING, attempt=2
    )


@pytest.fixture
def job(round) -> GenerationJob:
    launch(round)
    advance(round)
    return GenerationJob.objects.get()


def measure(run: TrainingRun, *values: float) -> None:
    begin = run.metrics.count()
    for step, value in enumerate(values, start=begin + 1):
        RunMetric.objects.create(run=run, attempt=run.attempt, step=step, name="loss", value=value)


def test_runs_are_listed_page_by_page_and_filtered(cast, round, researcher, run, tmp_path):
    to_training(cast, round)
    train(round, tmp_path)
    rows = all_pages(researcher, RUNS, page_size=1)
    assert [row["step"] for row in rows] == ["dpo", "reward", "dpo"]
    assert [row["round"] for row in rows] == [1, 1, None]
    assert [row["checkpoint"] is None for row in rows] == [False, False, True]
    assert len(all_pages(researcher, RUNS, round=1)) == 2
    assert [row["id"] for row in all_pages(researcher, RUNS, status="running")] == [str(run.pk)]
    assert len(all_pages(researcher, RUNS, method="dpo", status="succeeded")) == 1


@pytest.mark.parametrize("query", [{"step": "dpo"}, {"status": "tired"}, {"round": "first"}, {"sort": "x"}])
def test_a_filter_that_is_not_allowed_is_refused(researcher, query):
    assert researcher.get(RUNS, **query).status_code == 400


@BOTH_WAYS
def test_a_run_tells_what_it_read_and_with_which_options(cast, round, base, by):
    to_training(cast, round)
    run = round.runs.get(step="reward")
    told = Caller(cast.researcher, by=by).get(f"{RUNS}/{run.pk}").json()
    assert (told["round"], told["method"], told["status"], told["seconds"]) == (1, "reward", "queued", None)
    assert told["recipe"]["options"]["steps"] > 0
    dataset = round.datasets.get()
    assert {(item["role"], item["checkpoint"], item["dataset"]) for item in told["inputs"]} == {
        ("base", base.pk, None),
        ("data", None, dataset.pk),
    }


@BOTH_WAYS
def test_measurements_are_told_and_then_those_that_came_since(cast, run, by):
    caller = Caller(cast.researcher, by=by)
    measure(run, 0.7, 0.6)
    first = caller.get(f"{RUNS}/{run.pk}/metrics").json()
    assert first["rows"] == [["loss", 1, 0.7], ["loss", 2, 0.6]]
    assert first["over"] is False
    measure(run, float("nan"), 0.5)
    since = caller.get(f"{RUNS}/{run.pk}/metrics", after=first["last"]).json()
    assert since["rows"] == [["loss", 3, None], ["loss", 4, 0.5]]
    assert caller.get(f"{RUNS}/{run.pk}/metrics", after=since["last"]).json()["rows"] == []


def test_measurements_come_in_pages_and_a_run_is_not_over_before_the_last_one(
    cast, run, researcher, monkeypatch
):
    monkeypatch.setattr(runs, "METRICS_PER_PAGE", 2)
    measure(run, 0.7, 0.6, 0.5, 0.4)
    TrainingRun.objects.update(status=WorkStatus.SUCCEEDED)
    first = researcher.get(f"{RUNS}/{run.pk}/metrics").json()
    assert (first["rows"], first["more"], first["over"]) == (
        [["loss", 1, 0.7], ["loss", 2, 0.6]],
        True,
        False,
    )
    last = researcher.get(f"{RUNS}/{run.pk}/metrics", after=first["last"]).json()
    assert (last["rows"], last["more"], last["over"]) == ([["loss", 3, 0.5], ["loss", 4, 0.4]], False, True)


@pytest.mark.parametrize("query", [{"after": "-1"}, {"after": "x"}, {"after": "9" * 30}, {"since": "1"}])
def test_measurements_after_nothing_sensible_are_refused(researcher, run, query):
    assert researcher.get(f"{RUNS}/{run.pk}/metrics", **query).status_code == 400


@BOTH_WAYS
def test_the_end_of_the_log_is_told(cast, stored, run, job, by):
    caller = Caller(cast.researcher, by=by)
    for address, work in ((f"{RUNS}/{run.pk}", run), (f"{JOBS}/{job.pk}", job)):
        assert caller.get(f"{address}/log").json() == {"log": ""}
        folder = attempt_folder(work)
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text("one\ntwo <b>\nthree\n")
        assert caller.get(f"{address}/log").json() == {"log": "one\ntwo <b>\nthree"}
        assert caller.get(f"{address}/log", lines=1).json() == {"log": "three"}
        for lines in ("0", "1001", "all"):
            assert caller.get(f"{address}/log", lines=lines).status_code == 400


@BOTH_WAYS
def test_a_running_run_is_asked_to_stop_and_one_that_is_over_stays_so(cast, run, by):
    caller = Caller(cast.researcher, by=by)
    assert caller.post(f"{RUNS}/{run.pk}/cancel").json()["status"] == "cancelling"
    TrainingRun.objects.update(status=WorkStatus.SUCCEEDED)
    assert caller.post(f"{RUNS}/{run.pk}/cancel").json()["status"] == "succeeded"
    assert AuditEvent.objects.get(action="run cancelled").actor == cast.researcher


@BOTH_WAYS
def test_a_job_tells_who_writes_on_which_base(cast, round, base, job, by):
    told = Caller(cast.researcher, by=by).get(f"{JOBS}/{job.pk}").json()
    assert (told["status"], told["round"], told["base"]) == ("queued", 1, base.pk)
    assert set(told["contestants"]) == set(round.contestants.values_list("pk", flat=True))


@BOTH_WAYS
@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_runs_and_jobs_are_not_there_for_others(cast, run, job, who, by):
    caller = Caller(getattr(cast, who), by=by)
    at_run, at_job = f"{RUNS}/{run.pk}", f"{JOBS}/{job.pk}"
    answers = [caller.get(address) for address in (RUNS, at_run, f"{at_run}/metrics", f"{at_run}/log")]
    answers += [caller.get(at_job), caller.get(f"{at_job}/log"), caller.post(f"{at_run}/cancel")]
    assert [answer.status_code for answer in answers] == [404] * 7
    run.refresh_from_db()
    assert run.status == WorkStatus.RUNNING


def test_a_run_and_a_job_are_not_found_through_another_project(cast, run, job):
    open_project(slug="coffee", name="Coffee", user=cast.researcher)
    caller = Caller(cast.researcher)
    for address in (f"runs/{run.pk}", f"jobs/{job.pk}", f"runs/{uuid.uuid4()}", "runs/7"):
        assert caller.get(f"/api/v1/projects/coffee/{address}").status_code == 404
    assert caller.get("/api/v1/projects/coffee/runs").json()["results"] == []


def test_a_session_without_the_csrf_token_stops_nothing(cast, run, researcher):
    forged = Caller(cast.researcher, by="session", csrf=False)
    assert forged.post(f"{RUNS}/{run.pk}/cancel").status_code == 403
    assert researcher.get(f"{RUNS}/{run.pk}/cancel").status_code == 405
    run.refresh_from_db()
    assert run.status == WorkStatus.RUNNING
