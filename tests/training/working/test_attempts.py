"""What a worker does with a row: claim, run the recipe, take in what it writes, publish, end."""

import json

import pytest
from django.db import OperationalError

from annotation.models import Completion
from tests.training.stub import wait_until
from tests.training.working.stage import SAMPLE, TRAIN, folder_of, work
from training import store, tasks, worker
from training.models import Checkpoint, GenerationJob, RunMetric, TrainingRun, WorkStatus
from training.recipes.fingerprints import fingerprints
from training.recipes.run_dir import write_manifest
from training.services.work import claim_work, return_lost
from training.supervisor import read_log

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_generation_job_ends_with_every_completion_and_again_does_nothing(round, recipe):
    recipe(SAMPLE)
    job = GenerationJob.objects.get()
    worker.run_generation(job.pk)
    worker.run_generation(job.pk)
    job.refresh_from_db()
    assert (job.status, job.attempt, job.error) == (WorkStatus.SUCCEEDED, 1, "")
    assert job.progress == {"step": 1, "of": 1, "phase": "saving"}
    assert Completion.objects.count() == 12 * 2 * 2
    assert set(Completion.objects.values_list("job", "seed", "engine")) == {(job.pk, 1, "transformers")}
    config = json.loads((folder_of(job) / "config.json").read_text())
    assert [c["system_prompt"] for c in config["contestants"]] == ["", "Be brief."]
    assert [c["adapter"] for c in config["contestants"]] == [None, None]


def test_a_training_run_ends_with_its_metrics_and_one_checkpoint_and_again_does_nothing(run, recipe):
    recipe(TRAIN)
    assert work(run).status == WorkStatus.SUCCEEDED, run.error
    assert work(run).attempt == 1
    checkpoint = Checkpoint.objects.get(run=run)
    assert (checkpoint.kind, checkpoint.name, checkpoint.metrics) == (
        "reward",
        "round-1-reward",
        {"accuracy": 0.75},
    )
    published = store.fetch(checkpoint.digest)
    assert (published / "adapter_model.safetensors").read_bytes().endswith(b"rewa")
    base = store.fetch(checkpoint.base.digest)
    assert store.verify(published, checkpoint.digest)["about"] == {
        "kind": "reward",
        "base": checkpoint.base.digest,
        "method": "reward",
        **fingerprints(base),
    }
    assert sorted(run.metrics.values_list("step", "name", "value")) == [(1, "loss", 1.0), (2, "loss", 0.5)]
    assert run.result["seconds"] == {"loop": 1}


def test_the_tasks_may_be_run_twice(round, run, recipe, monkeypatch):
    recipe(TRAIN)
    rung = []
    monkeypatch.setattr(tasks.advance_rounds, "delay", lambda: rung.append("advance"))
    for _ in range(2):
        tasks.run_training(str(run.pk))
        tasks.run_generation(str(GenerationJob.objects.get().pk))
    assert len(rung) == 4
    assert Checkpoint.objects.filter(run=run).count() == 1
    assert GenerationJob.objects.get().attempt == 1


def test_waiting_work_is_rung_for_again_and_twice_rings_twice(round, run, monkeypatch):
    rung = []
    for task in (tasks.run_training, tasks.run_generation):
        monkeypatch.setattr(task, "apply_async", lambda args, expires, t=task: rung.append((t.name, args)))
    for _ in range(2):
        tasks.advance_rounds()
        tasks.sweep_lost_work()
    assert rung == [("training.tasks.run_training", [str(run.pk)])] * 4
    claim_work(TrainingRun, run.pk, worker="somebody")
    tasks.advance_rounds()
    assert len(rung) == 4


def test_a_mistake_of_the_researcher_fails_at_once_with_its_words(run, recipe):
    recipe("result(ok=False, error='Lower batch_size.', kind='recipe'); sys.exit(2)")
    assert (work(run).status, run.error, run.attempt) == (WorkStatus.FAILED, "Lower batch_size.", 1)
    assert folder_of(run).is_dir()
    assert not Checkpoint.objects.filter(run=run).exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "result(ok=False, error='KeyError: x', kind='bug'); sys.exit(1)",
            "ended with exit code 1: KeyError: x",
        ),
        ("print('Segmentation fault'); sys.exit(3)", "ended with exit code 3: Segmentation fault"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9: it said nothing"),
        ("sys.exit(0)", "ended with exit code 0: it said nothing"),
    ],
)
def test_a_bug_is_tried_again_until_the_attempts_are_used_up(run, recipe, code, said):
    recipe(code)
    TrainingRun.objects.update(attempt_limit=2)
    assert (work(run).status, run.attempt) == (WorkStatus.QUEUED, 1)
    assert said in run.error
    assert (work(run).status, run.attempt) == (WorkStatus.FAILED, 2)
    assert said in run.error
    assert work(run).attempt == 2


def test_only_attempts_that_come_to_nothing_are_counted(run, recipe, settings):
    recipe("""
        from training.recipes.run_dir import checkpoints_in, write_manifest
        last = max((step for step, _ in checkpoints_in(run_dir / "checkpoints")), default=0)
        if last < 3:
            folder = run_dir / f"checkpoints/step-{last + 1}"
            folder.mkdir(parents=True)
            write(f"checkpoints/step-{last + 1}/state", "new")
            write_manifest(folder, {"step": last + 1})
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    for attempt in range(1, 3 + settings.MAX_ATTEMPTS):
        assert (work(run).status, run.attempt) == (WorkStatus.QUEUED, attempt)
    assert (work(run).status, run.attempt) == (WorkStatus.FAILED, 3 + settings.MAX_ATTEMPTS)


def test_completions_that_were_saved_are_progress_too(round, recipe, settings):
    recipe("""
        with (run_dir / "completions.jsonl").open("a+") as file:
            file.seek(0)
            made = file.read().count("\\n")
            if made < 3:
                file.write(json.dumps({
                    "prompt": config["prompts"][made]["id"], "contestant": config["contestants"][0]["id"], "sample": 0,
                    "tokens": 2, "text": "Yes.", "finished": True, "batch": made, "seed": 1,
                }) + "\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    job = GenerationJob.objects.get()
    ended = []
    for _ in range(3 + settings.MAX_ATTEMPTS):
        worker.run_generation(job.pk)
        job.refresh_from_db()
        ended.append(job.status)
    assert ended == [WorkStatus.QUEUED] * (2 + settings.MAX_ATTEMPTS) + [WorkStatus.FAILED]
    assert Completion.objects.count() == 3


def test_the_next_attempt_goes_on_from_what_the_last_one_published(run, recipe):
    recipe(
        """
        if not (run_dir / "checkpoints").exists():
            from training.recipes.run_dir import write_manifest
            (run_dir / "checkpoints/step-3").mkdir(parents=True)
            write("checkpoints/step-3/state", "three")
            write_manifest(run_dir / "checkpoints/step-3", {"step": 3})
            write("metrics.jsonl", json.dumps({"step": 1, "name": "loss", "value": 5.0, "at": 0}) + "\\n")
            sys.exit(1)
        """
        + TRAIN.replace("\n", "\n        ")
    )
    assert work(run).status == WorkStatus.QUEUED
    assert work(run).status == WorkStatus.SUCCEEDED, run.error
    assert (folder_of(run, 2) / "checkpoints" / "step-3" / "state").read_text() == "three"
    assert read_log(folder_of(run, 2)) == "worker: attempt 2 goes on from step 3 of attempt-1"
    told = RunMetric.objects.filter(run=run, step=1).values_list("attempt", "value")
    assert sorted(told) == [(1, 5.0), (2, 1.0)]


def test_what_an_old_attempt_writes_after_it_was_taken_over_is_read_by_no_later_one(run, recipe):
    late = folder_of(run, 1) / "checkpoints/step-9"
    recipe(
        """
        if config["seed"] == 0:
            sys.exit(1)
        """
        + TRAIN.replace("\n", "\n        ")
    )
    TrainingRun.objects.update(seed=0)
    assert work(run).status == WorkStatus.QUEUED
    assert work(run).status == WorkStatus.QUEUED
    late.mkdir(parents=True)
    (late / "state").write_text("late")
    write_manifest(late, {"step": 9})
    TrainingRun.objects.update(seed=1)
    assert work(run).status == WorkStatus.SUCCEEDED, run.error
    assert not list(folder_of(run, 3).glob("checkpoints/*"))


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_error_of_our_own_is_tried_again_as_long_as_there_are_attempts(run, recipe, monkeypatch, attempts):
    recipe(TRAIN)
    TrainingRun.objects.update(attempt_limit=attempts)

    def broken(*_, **__):
        raise ConnectionError("the store does not answer")

    monkeypatch.setattr(store, "publish", broken)
    expected = WorkStatus.FAILED if attempts == 1 else WorkStatus.QUEUED
    assert (work(run).status, run.error) == (expected, "ConnectionError: the store does not answer")


def test_what_cannot_be_written_because_the_database_is_away_is_written_later(run, recipe, monkeypatch):
    recipe(TRAIN)
    lock, asked = worker.lock_held, []

    def away_at_first(held):
        asked.append(held)
        if len(asked) < 3:
            raise OperationalError("the connection is lost")
        lock(held)

    monkeypatch.setattr(worker, "lock_held", away_at_first)
    assert work(run).status == WorkStatus.SUCCEEDED, run.error
    assert run.metrics.count() == 2
    assert run.attempt == 1


def test_a_run_whose_end_could_not_be_written_is_done_again_by_the_next_worker(
    run, recipe, monkeypatch, settings
):
    recipe(TRAIN)
    settings.WORK_LEASE_SECONDS = 0.3

    def away(**_):
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as broken:
        broken.setattr(worker, "register_result", away)
        assert work(run).status == WorkStatus.RUNNING
    wait_until(lambda: return_lost(TrainingRun) == 1, "the sweep")
    assert work(run).status == WorkStatus.SUCCEEDED, run.error
    assert Checkpoint.objects.filter(run=run).count() == 1
