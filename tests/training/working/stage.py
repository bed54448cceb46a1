"""What the tests of a worker put on the stage: recipes of a few lines, and a worker in a thread."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from django.db import connection

from deploy.local.processes import is_running
from tests.training.stub import wait_until
from training import worker
from training.models import TrainingRun

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
# Says that it is there, and waits to be stopped.
WAIT = """
signal.signal(signal.SIGTERM, lambda *_: (result(ok=False, error="stopped", kind="interrupted"), sys.exit(143)))
write("ready", str(os.getpid()))
time.sleep(600)
"""


def work(run: TrainingRun) -> TrainingRun:
    worker.run_training(run.pk)
    run.refresh_from_db()
    return run


def folder_of(run: TrainingRun, attempt: int = 1) -> Path:
    return worker.attempt_folder(run, attempt)


def at_work(run: TrainingRun) -> Iterator[TrainingRun]:
    """The run once a worker, in a thread, is busy with it: its recipe has written `ready`. Ended after that."""

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
    if is_running(run.recipe_pid):
        TrainingRun.objects.filter(pk=run.pk).update(attempt=99)
        os.kill(run.recipe_pid, signal.SIGKILL)
    thread.join()


def wait_for_the_worker(working: TrainingRun) -> None:
    wait_until(lambda: not working.thread.is_alive(), "the worker")
    assert not is_running(working.recipe_pid)
