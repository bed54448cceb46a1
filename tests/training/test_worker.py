"""What a worker does with a row: claim, run the recipe, take in what it writes, publish, end. The recipe is a stub."""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest
from django.db import OperationalError, connection

from annotation.models import Completion
from tests.cast import add_prompts, assemble
from tests.training.stage import PLAN, add_base, draft, generate, rank
from tests.training.stub import is_alive, wait_until, write_stub
from tests.training.weights import write_adapter
from training import looking_over, resources, store, tasks, worker
from training.models import Checkpoint, GenerationJob, RunInput, RunMetric, TrainingRun, WorkStatus
from training.recipes.fingerprints import fingerprints
from training.recipes.run_dir import write_manifest
from training.services.launching import open_draft
from training.services.rounds import advance_round, launch_round
from training.services.work import claim_work, request_cancel, return_lost
from training.supervisor import read_log

pytestmark = pytest.mark.django_db(transaction=True)

# Answers every prompt, as the sampling recipe would.
SAMPLE = """
with (run_dir / "completions.jsonl").open("a") as file:
    for batch, contestant in enumerate(config["contestants"]):
        for prompt in config["prompts"]:
            for sample in range(config["samples"]):
                file.write(json.dumps({
                    "prompt": prompt["id"], "contestant": contestant["id"], "sample": sample, "tokens": 3,
                    "text": f"{contestant['id']} {sample}", "finished": True, "batch": batch, "seed": 1,
                }) + "\\n")
write("progress.json", json.dumps({"step": 1, "of": 1, "phase": "saving"}))
result(ok=True, metrics={"made": 1})
"""
# Trains nothing, but leaves what the training recipes leave.
TRAIN = """
with (run_dir / "metrics.jsonl").open("a") as file:
    for step in (1, 2):
        file.write(json.dumps({"step": step, "name": "loss", "value": 1 / step, "at": 0}) + "\\n")
from tests.training.weights import write_adapter
write_adapter(run_dir / "output", config["method"].encode())
result(ok=True, metrics={"accuracy": 0.75}, seconds={"loop": 1})
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Put the given code in the place of every recipe."""
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)

    def be(code: str) -> None:
        monkeypatch.setattr(sys, "executable", str(write_stub(tmp_path, code)))

    return be


@pytest.fixture
def round(stored, tmp_path):
    """A round whose generation job waits for a worker."""
    cast = assemble()
    add_prompts(cast, 12)
    round = draft(cast, add_base(cast, tmp_path / "base"), training_plan=PLAN)
    launch_round(round=round, user=cast.researcher)
    advance_round(round_id=round.pk)
    round.cast = cast
    return round


@pytest.fixture
def run(round) -> TrainingRun:
    """A training run that waits for a worker."""
    generate(round)
    advance_round(round_id=round.pk)
    rank(round.cast, [round.cast.anna, round.cast.ben])
    advance_round(round_id=round.pk)
    return TrainingRun.objects.get(step="reward")


def work(run: TrainingRun) -> TrainingRun:
    worker.run_training(run.pk)
    run.refresh_from_db()
    return run


def folder_of(run: TrainingRun, attempt: int = 1) -> Path:
    return worker.attempt_folder(run, attempt)


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


OUT_OF_MEMORY = "result(ok=False, error='Out of memory.', kind='memory'); sys.exit(2)"


def test_out_of_memory_is_tried_once_more_with_half_the_micro_batch_and_the_recipe_stays(run, recipe):
    recipe(OUT_OF_MEMORY)
    asked = {**run.recipe["options"], "batch_size": 24, "micro_batch_size": 12}
    TrainingRun.objects.filter(pk=run.pk).update(attempt_limit=1, recipe=run.recipe | {"options": asked})
    assert work(run).status == WorkStatus.QUEUED
    assert (run.halvings, run.attempt_limit) == (1, 2)
    assert "Memory ran out with 12 rows computed together. It is tried once more with 6" in run.error
    assert "tried once more with 6" in read_log(folder_of(run, 1))
    assert work(run).status == WorkStatus.FAILED
    assert run.error.startswith("Out of memory. It was tried with 6 rows computed together.")
    sizes = [
        json.loads((folder_of(run, attempt) / "config.json").read_text())["options"]["micro_batch_size"]
        for attempt in (1, 2)
    ]
    assert sizes == [12, 6]
    assert run.recipe["options"] == asked
    assert not Checkpoint.objects.filter(run=run).exists()


def test_the_second_try_after_out_of_memory_may_succeed(run, recipe):
    recipe(
        f"if config['options']['micro_batch_size'] == {run.recipe['options']['micro_batch_size']}:\n"
        + f"    {OUT_OF_MEMORY}\n".replace("; ", "\n    ")
        + TRAIN
    )
    assert [work(run).status for _ in range(2)] == [WorkStatus.QUEUED, WorkStatus.SUCCEEDED]
    assert (run.halvings, run.error) == (1, "")


def test_a_micro_batch_of_one_cannot_be_halved(run, recipe):
    recipe(OUT_OF_MEMORY)
    options = {**run.recipe["options"], "micro_batch_size": 1}
    TrainingRun.objects.filter(pk=run.pk).update(recipe=run.recipe | {"options": options})
    assert (work(run).status, run.halvings) == (WorkStatus.FAILED, 0)


@pytest.mark.parametrize(
    ("method", "sizes", "halved"),
    [
        ("dpo", {"batch_size": 24, "micro_batch_size": 12}, 6),
        ("dpo", {"batch_size": 4, "micro_batch_size": 12}, 2),  # 12 was never in use
        ("dpo", {"batch_size": 9, "micro_batch_size": 1}, None),
        ("dpo", {"batch_size": 14, "micro_batch_size": 6}, 1),  # of 14 rows, 2 fit together, not 6
        ("rloo", {"batch_size": 14, "micro_batch_size": 6, "group_size": 2, "reward": "length"}, 1),
        ("ppo", {"batch_size": 14, "micro_batch_size": 6, "reward": "length"}, 3),  # in sixes and a rest
        ("kto", {"batch_size": 24, "micro_batch_size": 12}, 6),
        ("kto", {"batch_size": 4, "micro_batch_size": 2}, None),  # TRL computes no fewer
        ("kto", {"batch_size": 5, "micro_batch_size": 5}, None),  # five can't be parted
    ],
)
def test_half_a_micro_batch_is_what_the_method_can_do_with(method, sizes, halved):
    assert resources.can_halve(method, sizes, 0) == (halved is not None)
    assert not resources.can_halve(method, sizes, 1)
    if halved is not None:
        assert resources.rows_together(method, sizes, 1) == halved


def test_what_several_processes_compute_together_is_halved_from_the_share_of_each(settings):
    settings.TRAINING_PROCESSES = 8
    sizes = {"batch_size": 48, "micro_batch_size": 24}  # six rows each
    assert [resources.rows_together("dpo", sizes, halvings) for halvings in (0, 1)] == [6, 3]


def test_a_recipe_that_the_kernel_ended_for_want_of_memory_is_told_from_one_that_was_killed(
    run, recipe, monkeypatch
):
    recipe("os.kill(os.getpid(), signal.SIGKILL)")
    counted = iter([3, 4, 4, 4])
    monkeypatch.setattr(resources, "oom_kills", lambda: next(counted))
    assert (work(run).status, run.halvings) == (WorkStatus.QUEUED, 1)
    assert "Memory ran out" in run.error
    assert (work(run).status, run.halvings) == (WorkStatus.QUEUED, 1)
    assert "was killed by signal 9" in run.error


def test_without_room_on_the_disk_nothing_is_started_and_the_remedy_is_told(run, recipe, settings):
    recipe("write('started', '')")
    settings.DISK_RESERVE = 10**18
    assert (work(run).status, run.attempt) == (WorkStatus.FAILED, 1)
    assert "Free some space, then retry" in run.error
    assert not (folder_of(run) / "started").exists()


def test_what_a_run_will_write_is_asked_of_the_disk_beside_the_reserve(tiny_model, settings, tmp_path):
    needed = resources.disk_needed("dpo", tiny_model, {"lora_rank": 16})
    assert 100_000 < needed < resources.disk_needed("ppo", tiny_model, {"lora_rank": 16})
    assert resources.disk_needed("sampling", tiny_model, {}) == 0
    free = shutil.disk_usage(tmp_path).free
    settings.DISK_RESERVE = free // 2
    resources.refuse_full_disk(tmp_path, free // 4)
    with pytest.raises(resources.NoRoom, match="must stay free"):
        resources.refuse_full_disk(tmp_path, free)


def test_a_disk_that_runs_short_makes_a_run_save_and_stop(working, settings):
    settings.DISK_RESERVE = 10**18
    wait_for_the_worker(working)
    working.refresh_from_db()
    assert working.status == WorkStatus.FAILED
    assert "nearly full" in working.error
    assert json.loads((folder_of(working) / "result.json").read_text())["kind"] == "interrupted"


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


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("write_adapter(run_dir / 'output', auto_mapping={'base_model_class': 'x'})", "auto_mapping"),
        ("write('output/optimizer.pt', '')", "pickle files"),
        ("write('output/adapter_model.safetensors', '')", "not whole safetensors"),
    ],
)
def test_an_output_that_is_not_to_be_trusted_is_never_published(run, recipe, stored, spoil, said):
    recipe(TRAIN.replace("result(", f"{spoil}\nresult("))
    before = sorted(stored.rglob("*"))
    assert work(run).status == WorkStatus.FAILED
    assert said in run.error
    assert sorted(stored.rglob("*")) == before
    assert not Checkpoint.objects.filter(run=run).exists()


@pytest.fixture
def untrusted(run, tmp_path) -> Checkpoint:
    """A policy whose configuration asks for what is not on the list."""
    base = run.inputs.get(role="base").checkpoint
    digest = store.publish(write_adapter(tmp_path / "untrusted", bias="all"))
    return Checkpoint.objects.create(
        project=run.project, name="untrusted", kind="policy", digest=digest, base=base
    )


def test_a_run_on_a_parent_that_is_not_to_be_trusted_is_refused_before_it_starts(run, recipe, untrusted):
    recipe("write('started', '')")
    RunInput.objects.create(run=run, role=RunInput.Role.PARENT, checkpoint=untrusted)
    assert (work(run).status, run.attempt) == (WorkStatus.FAILED, 1)
    assert "has bias = 'all', which is not on the list" in run.error
    assert not (folder_of(run) / "started").exists()


def test_a_draft_on_such_a_parent_is_told_so_before_it_is_launched(run, recipe, untrusted):
    recipe("write('started', '')")
    dataset = run.inputs.get(role="data").dataset
    drafted = open_draft(
        project=run.project,
        user=run.created_by,
        method="dpo",
        options={},
        dataset=dataset,
        parent=untrusted,
    )
    looking_over.check_run(drafted.pk)
    drafted.refresh_from_db()
    assert drafted.status == WorkStatus.DRAFT
    assert "has bias = 'all', which is not on the list" in drafted.findings["problems"][0]["what"]


def test_a_damaged_base_is_never_trained_on(run, recipe, tmp_path):
    recipe("write('started', '')")
    base = store.fetch(run.inputs.get(role="base").checkpoint.digest)
    (base / "model.safetensors").write_bytes(b"other")
    assert work(run).status == WorkStatus.FAILED
    assert "model.safetensors" in run.error
    assert not (folder_of(run) / "started").exists()


def test_a_full_disk_at_publication_fails_the_run_and_registers_nothing(run, recipe, monkeypatch):
    recipe(TRAIN)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_publish_local", full)
    assert work(run).status == WorkStatus.FAILED
    assert "No space left" in run.error
    assert not Checkpoint.objects.filter(run=run).exists()


WAIT = """
signal.signal(signal.SIGTERM, lambda *_: (result(ok=False, error="stopped", kind="interrupted"), sys.exit(143)))
write("ready", str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def working(run, recipe, settings):
    """A run that a worker, in a thread, is busy with: its recipe waits."""
    settings.WORK_LEASE_SECONDS = 0.6  # a heartbeat every 0.2 seconds
    recipe(WAIT)
    yield from at_work(run)


@pytest.fixture
def deaf(run, recipe, settings):
    """The same with a recipe that does not stop when it is asked to, which it may not do for long."""
    settings.WORK_LEASE_SECONDS, settings.STOP_SECONDS = 0.6, 0.1
    recipe("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT.split("\n", 2)[2])
    yield from at_work(run)


def at_work(run):
    def be_busy() -> None:
        try:
            worker.run_training(run.pk)
        finally:
            connection.close()

    thread = threading.Thread(target=be_busy)
    thread.start()
    ready = folder_of(run) / "ready"
    wait_until(lambda: ready.exists() and ready.read_text() != "", "the recipe")
    run.thread, run.recipe_pid = thread, int(ready.read_text())
    yield run
    if is_alive(run.recipe_pid):
        TrainingRun.objects.filter(pk=run.pk).update(attempt=99)
        os.kill(run.recipe_pid, signal.SIGKILL)
    thread.join()


def wait_for_the_worker(working) -> None:
    wait_until(lambda: not working.thread.is_alive(), "the worker")
    assert not is_alive(working.recipe_pid)


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
