"""Promise 6: a run whose worker was killed ends in the same checkpoint as one that was never interrupted."""

import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.utils import timezone

from deploy.local.processes import is_running
from tests.cast import Cast, assemble, open_ranking
from tests.environment import ROOT
from tests.processes import arguments_of, processes
from tests.together import together
from tests.training.stage import draft, rank
from tests.training.stub import wait_until
from training import store, worker
from training.models import Checkpoint, RunMetric, TrainingRun, WorkStatus
from training.services.checkpoints import register_base
from training.services.runs import queue_training
from training.services.snapshots import snapshot_rounds
from training.services.work import return_lost

pytestmark = pytest.mark.django_db(transaction=True)

STEPS, SAVE_EVERY = 48, 4
OPTIONS = {
    "steps": STEPS,
    "batch_size": 6,
    "save_steps": SAVE_EVERY,
    "warmup_steps": 0,
    "learning_rate": 0.01,
}
WORKER = """
import sys
sys.path.insert(0, "platform")
import django
django.setup()
from training import worker
worker.run_training(sys.argv[1])
"""


def queue_runs(cast: Cast, tiny_model: Path) -> dict[str, TrainingRun]:
    """Three runs on one dataset, apart from the seed of the last all alike."""
    judged = open_ranking(cast, comparisons=12, overlap=1)
    rank(cast, [cast.anna])
    base = register_base(project=cast.project, folder=tiny_model, name="tiny")
    steps = ("undisturbed", "killed", "another_seed")
    plan = [{"step": step, "method": "dpo", "options": OPTIONS} for step in steps]
    round = draft(cast, base, training_plan=plan)
    runs = queue_training(round=round, dataset=snapshot_rounds(project=cast.project, rounds=[judged]))
    TrainingRun.objects.filter(step="another_seed").update(seed=runs[0].seed + 1)
    return {run.step: run for run in runs}


def start_worker(run: TrainingRun) -> subprocess.Popen:
    """A worker process of its own, on the test's database and store."""
    database = (
        urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    )
    environment = os.environ | {
        "DATABASE_URL": database,
        "DJANGO_SETTINGS_MODULE": "rankloop.settings",
        "RANKLOOP_TRAINING_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-c", WORKER, str(run.pk)], cwd=ROOT, env=environment)


@pytest.mark.slow
def test_a_run_whose_worker_was_killed_ends_in_the_same_weights_as_an_undisturbed_one(tiny_model, settings):
    settings.TRAINING_THREADS = 1
    runs = queue_runs(assemble(), tiny_model)
    killed = runs["killed"]
    folder = worker.attempt_folder(killed, 1)
    # Anywhere in the first half: there is a checkpoint, and much is left to do.
    moment = random.randrange(SAVE_EVERY, STEPS // 2)
    print(f"killed at step {moment}")  # pytest shows it when the test fails

    process = start_worker(killed)
    try:
        last_checkpoint = folder / f"checkpoints/step-{moment - moment % SAVE_EVERY}/manifest.json"
        steps_done = folder / "metrics.jsonl"
        wait_until(
            lambda: (
                process.poll() is not None
                or (last_checkpoint.exists() and f'"step": {moment},' in steps_done.read_text())
            ),
            f"step {moment}",
            seconds=120,
        )
        assert process.poll() is None
        (recipe,) = processes(lambda pid: str(folder) in arguments_of(pid))
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not is_running(recipe), "the end of the recipe, which dies with its worker")
    killed.refresh_from_db()
    assert (killed.status, killed.attempt) == (WorkStatus.RUNNING, 1)
    assert not (folder / "result.json").exists()
    assert not Checkpoint.objects.filter(run=killed).exists()

    TrainingRun.objects.filter(pk=killed.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert return_lost(TrainingRun) == 1
    steps = list(runs)
    together(len(steps), lambda number: worker.run_training(runs[steps[number]].pk))

    for run in runs.values():
        run.refresh_from_db()
        assert run.status == WorkStatus.SUCCEEDED, run.error
    assert killed.attempt == 2
    assert killed.result["metrics"]["resumed_from"] >= moment - moment % SAVE_EVERY
    assert runs["undisturbed"].result["metrics"]["resumed_from"] is None
    checkpoints = {step: run.checkpoint for step, run in runs.items()}
    weights = {
        step: (store.fetch(checkpoint.digest) / "adapter_model.safetensors").read_bytes()
        for step, checkpoint in checkpoints.items()
    }
    assert weights["killed"] == weights["undisturbed"] != weights["another_seed"]
    assert checkpoints["killed"].digest == checkpoints["undisturbed"].digest
    assert checkpoints["killed"].metrics["accuracy"] == checkpoints["undisturbed"].metrics["accuracy"]
    # The measurements of both attempts are kept apart, and the second goes on where the first was saved.
    first_step = RunMetric.objects.filter(run=killed, attempt=2, name="loss").order_by("step").first().step
    assert first_step == killed.result["metrics"]["resumed_from"] + 1
    assert not list(settings.RUNS_FOLDER.glob("*/attempt-3"))
