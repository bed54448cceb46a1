"""What a worker does with a generation job or a training run: claim, prepare, run the recipe, take in, publish, end.

Disk, network and the recipe's own time all lie outside transactions; only the short writes at the end share one.
Each attempt has its own folder, and only the folder of the attempt that holds the lease is read.
"""

import json
import os
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from annotation.models import Completion
from training import store
from training.models import Checkpoint, GenerationJob, RunInput, RunMetric, TrainingRun, WorkStatus
from training.models.work import Work
from training.preferences import FORMS, ROWS_FILE, SPLITS, text_digests
from training.recipes.options import METHODS
from training.services.checkpoints import checkpoint_of, register_result
from training.services.work import LeaseLost, claim_work, end_work, lock_held, renew_work, write_held
from training.supervisor import Recipe, carry_over, read_log
from training.tracking import tracker_of, write_tensorboard

# How often a running recipe's files are read.
POLL_SECONDS = 0.5
# Set when this worker is asked to shut down: what runs saves a checkpoint and waits for the next worker.
shutting_down = threading.Event()


def worker_name() -> str:
    """Host and process: who holds a lease."""
    return f"{socket.gethostname()}:{os.getpid()}"


def attempt_folder(work: Work, attempt: int | None = None) -> Path:
    """Folder of one attempt, by default the present one."""
    return settings.RUNS_FOLDER / str(work.pk) / f"attempt-{work.attempt if attempt is None else attempt}"


class Heartbeat:
    """Renews a lease from a thread of its own while the worker is busy with files, network or the recipe."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.lost = threading.Event()
        self.cancelled = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            while not self._over.wait(min(1.0, settings.WORK_LEASE_SECONDS / 3)):
                try:
                    if renew_work(self.work):
                        self.cancelled.set()
                except LeaseLost:
                    self.lost.set()
                    return
        finally:
            connection.close()


def run_generation(job_id: Any) -> None:
    """Claim and do one generation job. Rung twice, the second call finds nothing to claim."""
    job = claim_work(GenerationJob, job_id, worker=worker_name())
    if job is not None:
        _work_on(job, "sampling", _generation_config, _take_in_completions, _end_generation)


def run_training(run_id: Any) -> None:
    """Claim and do one training run. Rung twice, the second call finds nothing to claim."""
    run = claim_work(TrainingRun, run_id, worker=worker_name())
    if run is not None:
        _work_on(run, run.method, _training_config, _take_in_metrics, _end_training)


def _work_on(
    work: Work,
    method: str,
    prepare: Callable[[Any, Path], dict[str, Any]],
    take_in: Callable[[Any, Recipe], None],
    end: Callable[[Any, Recipe, dict[str, Any]], None],
) -> None:
    """One attempt from claim to end. A lost lease stops it silently: another attempt has the work."""
    recipe = Recipe(method, attempt_folder(work))
    try:
        with Heartbeat(work) as heartbeat:
            _prepare(work, recipe.run_dir, prepare)
            recipe.start()
            try:
                code = _watch(work, recipe, heartbeat, take_in)
            finally:
                recipe.close()
            if heartbeat.lost.is_set():
                return
            _finish(work, recipe, code, heartbeat, end)
    except LeaseLost:
        return
    except Exception as error:
        _fail(work, f"{type(error).__name__}: {error}")
        if not isinstance(error, (store.DamagedArtifact, store.ErasedText, OSError)):
            traceback.print_exc()


def _prepare(work: Work, run_dir: Path, prepare: Callable[[Any, Path], dict[str, Any]]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    for earlier in range(work.attempt - 1, 0, -1):
        previous = attempt_folder(work, earlier)
        if previous.is_dir():
            carry_over(previous, run_dir)
            break
    (run_dir / "config.json").write_text(json.dumps(prepare(work, run_dir), indent=1))


def _watch(work: Work, recipe: Recipe, heartbeat: Heartbeat, take_in: Callable[[Any, Recipe], None]) -> int:
    """Take in what the recipe writes until it ends; stop it when asked to, or when the lease is lost."""
    while True:
        code = recipe.wait(POLL_SECONDS)
        if heartbeat.lost.is_set():
            recipe.kill()
            return -1
        take_in(work, recipe)
        progress = recipe.read_json("progress.json")
        if progress and progress != work.progress:
            write_held(work, progress=progress)
            work.progress = progress
        if code is not None:
            return code
        if heartbeat.cancelled.is_set() or shutting_down.is_set():
            recipe.interrupt()


def _finish(
    work: Work,
    recipe: Recipe,
    code: int,
    heartbeat: Heartbeat,
    end: Callable[[Any, Recipe, dict[str, Any]], None],
) -> None:
    result = recipe.read_json("result.json")
    if code == 0 and result.get("ok"):
        end(work, recipe, result)
    elif heartbeat.cancelled.is_set():
        end_work(work, WorkStatus.CANCELLED, result=result)
    elif shutting_down.is_set():
        # Nobody's fault, so it costs no attempt.
        limit = work.attempt_limit + 1
        write_held(work, status=WorkStatus.QUEUED, lease_until=None, attempt_limit=limit)
    elif result.get("kind") == "recipe":
        # The researcher's mistake: another attempt would make it again.
        _fail(work, result["error"])
    elif work.attempt < work.attempt_limit:
        write_held(work, status=WorkStatus.QUEUED, lease_until=None, error=_reason(recipe, result, code))
    else:
        _fail(work, _reason(recipe, result, code))


def _reason(recipe: Recipe, result: dict[str, Any], code: int) -> str:
    said = result.get("error") or read_log(recipe.run_dir, lines=3) or "it said nothing"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The {recipe.method} process {how}: {said}"


def _fail(work: Work, reason: str) -> None:
    with suppress(LeaseLost):
        end_work(work, WorkStatus.FAILED, error=reason)


# --- generation ---


def _generation_config(job: GenerationJob, run_dir: Path) -> dict[str, Any]:
    contestants = []
    for contestant in job.contestants.order_by("pk"):
        checkpoint = checkpoint_of(contestant)
        adapter = None if checkpoint.kind == Checkpoint.Kind.BASE else str(store.fetch(checkpoint.digest))
        contestants.append(
            {
                "id": str(contestant.pk),
                "adapter": adapter,
                "system_prompt": contestant.system_prompt,
                "decoding": contestant.decoding,
            }
        )
    prompts = job.round.prompts.order_by("pk").values_list("pk", "messages")
    return {
        "method": "sampling",
        "base": str(store.fetch(job.base.digest)),
        "seed": job.seed,
        "threads": settings.TRAINING_THREADS or None,
        "contestants": contestants,
        "prompts": [{"id": str(pk), "messages": messages} for pk, messages in prompts],
        "samples": job.round.samples_per_contestant,
        "options": {},
    }


def _take_in_completions(job: GenerationJob, recipe: Recipe) -> None:
    """Save new completions. Doubles (an earlier attempt's) fall away by the unique constraint: they are equal."""
    rows = [
        Completion(
            prompt_id=int(line["prompt"]),
            contestant_id=int(line["contestant"]),
            sample_index=job.round.first_sample + line["sample"],
            text=line["text"].replace("\x00", ""),
            finished=line["finished"],
            token_count=line["tokens"],
            engine="transformers",
            engine_version=version("transformers"),
            job=job.pk,
            batch=line["batch"],
            seed=line["seed"],
        )
        for line in recipe.read_lines("completions.jsonl")
    ]
    if rows:
        with transaction.atomic():
            lock_held(job)
            Completion.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)


def _end_generation(job: GenerationJob, recipe: Recipe, result: dict[str, Any]) -> None:
    end_work(job, WorkStatus.SUCCEEDED, result=result)


# --- training ---


def _training_config(run: TrainingRun, run_dir: Path) -> dict[str, Any]:
    inputs = {item.role: item for item in run.inputs.select_related("checkpoint", "dataset")}
    dataset = inputs[RunInput.Role.DATA].dataset
    rows = [
        json.loads(line) for line in (store.fetch(dataset.digest) / ROWS_FILE).read_text().split("\n") if line
    ]
    texts = {digest: store.get_text(digest) for digest in text_digests(rows)}
    lines, version_of_form = FORMS[METHODS[run.method].reads]
    for split in SPLITS:
        with (run_dir / f"{split}.jsonl").open("w") as file:
            for line in lines(rows, texts=texts, split=split):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    folders = {
        role: str(store.fetch(item.checkpoint.digest)) for role, item in inputs.items() if item.checkpoint
    }
    return {
        "method": run.method,
        "base": folders[RunInput.Role.BASE],
        "parent": folders.get(RunInput.Role.PARENT),
        "reward_model": folders.get(RunInput.Role.REWARD_MODEL),
        "seed": run.seed,
        "threads": settings.TRAINING_THREADS or None,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
        "data_version": version_of_form,
        "options": run.recipe["options"],
        "tracker": tracker_of(run),
    }


def _take_in_metrics(run: TrainingRun, recipe: Recipe) -> None:
    lines = list(recipe.read_lines("metrics.jsonl"))
    rows = [
        RunMetric(run=run, attempt=run.attempt, step=line["step"], name=line["name"], value=line["value"])
        for line in lines
    ]
    if rows:
        with transaction.atomic():
            lock_held(run)
            RunMetric.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        write_tensorboard(run, lines)


def _end_training(run: TrainingRun, recipe: Recipe, result: dict[str, Any]) -> None:
    """Publish the adapter, then end the run and register its checkpoint in one transaction."""
    base = run.inputs.get(role=RunInput.Role.BASE).checkpoint
    kind = METHODS[run.method].makes
    digest = store.publish(
        recipe.run_dir / "output", about={"kind": kind, "base": base.digest, "method": run.method}
    )
    with transaction.atomic():
        end_work(run, WorkStatus.SUCCEEDED, result=result)
        register_result(run=run, kind=kind, digest=digest, base=base, metrics=result["metrics"])
