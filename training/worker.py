"""What a worker does with a generation job or a training run: claim, prepare, run the recipe, take in, publish, end.

Disk, network and the recipe's own time all lie outside transactions; only the short writes at the end share one.
Each attempt has its own folder, and only the folder of the attempt that holds the lease is read.
"""

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction

from annotation.models import Completion
from rankloop.errors import Refused
from training import resources, store
from training.models import GenerationJob, RunInput, RunMetric, TrainingRun, WorkStatus
from training.models.work import Work
from training.preferences import FORMS, SPLITS, text_digests
from training.recipes.fingerprints import fingerprints
from training.recipes.model_folders import refuse_disagreement
from training.recipes.options import METHODS
from training.recipes.run_dir import RecipeError, checkpoints_in, is_disk_full, write_json
from training.selectors.datasets import rows_of
from training.services.checkpoints import check_trained, checkpoint_of, register_result
from training.services.work import (
    LeaseLost,
    claim_work,
    end_work,
    give_back,
    grant_attempts,
    lock_held,
    renew_work,
    write_held,
)
from training.supervisor import Recipe, carry_over
from training.tracking import tracker_of, write_tensorboard

# How often a running recipe's files are read.
POLL_SECONDS = 0.5
# Set when this worker is asked to shut down: what runs saves a checkpoint and waits for the next worker.
shutting_down = threading.Event()
# The database can't be reached, or has cut us off. Whatever was to be written, the row still says who holds it.
DATABASE_GONE = (OperationalError, InterfaceError, InternalError)
# Told in their own words and not tried again: a person has to mend them.
REFUSALS = (store.DamagedArtifact, store.ErasedText, resources.NoRoom, RecipeError, Refused)


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
        renewed = time.monotonic()
        try:
            while not self._over.wait(min(1.0, settings.WORK_LEASE_SECONDS / 3)):
                try:
                    if renew_work(self.work):
                        self.cancelled.set()
                    renewed = time.monotonic()
                except LeaseLost:
                    self.lost.set()
                    return
                except DATABASE_GONE:
                    connection.close()
                    if time.monotonic() - renewed > settings.WORK_LEASE_SECONDS:
                        self.lost.set()  # it has run out, and may be somebody else's by now
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
        _work_on(run, run.method, training_config, _take_in_metrics, _end_training)


def _work_on(
    work: Work,
    method: str,
    prepare: Callable[[Any, Path], dict[str, Any]],
    take_in: Callable[[Any, Recipe], None],
    end: Callable[[Any, Recipe, dict[str, Any]], None],
) -> None:
    """One attempt from claim to end. A lost lease stops it silently: another attempt has the work."""
    recipe = Recipe(method, attempt_folder(work), stop_seconds=settings.STOP_SECONDS)
    try:
        with Heartbeat(work) as heartbeat:
            _prepare(work, recipe, prepare)
            if heartbeat.lost.is_set():
                return
            recipe.start()
            try:
                code = _watch(work, recipe, heartbeat, take_in)
            finally:
                recipe.close()
            if not heartbeat.lost.is_set():
                _finish(work, recipe, code, heartbeat, end)
    except LeaseLost:
        return
    except DATABASE_GONE:
        traceback.print_exc()  # nothing can be written: the lease runs out, and the sweeper gives the work back
    except REFUSALS as error:
        _fail(work, str(error))
    except Exception as error:
        if is_disk_full(error, recipe.run_dir):
            _fail(
                work,
                f"The disk is full ({error}). Free some space, then retry: it goes on from its last checkpoint.",
            )
        else:
            traceback.print_exc()
            _again_or_fail(work, f"{type(error).__name__}: {error}")


def _prepare(work: Work, recipe: Recipe, prepare: Callable[[Any, Path], dict[str, Any]]) -> None:
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    config = prepare(work, recipe.run_dir)
    needed = resources.disk_needed(
        recipe.method, Path(config["base"]), config["options"], config.get("parent")
    )
    resources.refuse_full_disk(recipe.run_dir, needed)
    earlier = [attempt_folder(work, number) for number in range(work.attempt - 1, 0, -1)]
    for said in carry_over(earlier, recipe.run_dir):
        recipe.note(f"attempt {work.attempt} {said}")
    write_json(recipe.run_dir / "config.json", config)


def _watch(work: Work, recipe: Recipe, heartbeat: Heartbeat, take_in: Callable[[Any, Recipe], None]) -> int:
    """Take in what the recipe writes until it ends; stop it when asked to, or when lease or disk run out."""
    before = _saved(recipe.run_dir)
    is_counted = True  # among the attempts that come to nothing, of which there may be only so many
    is_short = False  # of disk
    while True:
        code = recipe.wait(POLL_SECONDS)
        if heartbeat.lost.is_set():
            recipe.kill()
            return -1
        read = dict(recipe.offsets)
        try:
            take_in(work, recipe)
            progress = recipe.read_json("progress.json")
            if progress and progress != work.progress:
                write_held(work, progress=progress)
                work.progress = progress
            if is_counted and _saved(recipe.run_dir) > before:
                grant_attempts(work)
                is_counted = False
        except DATABASE_GONE:
            connection.close()
            recipe.offsets = read  # and what it has written is read again, once the database is back
            time.sleep(POLL_SECONDS)
            continue
        if code is not None:
            if is_short and code != 0:
                raise resources.NoRoom(resources.disk_ran_short(recipe.run_dir))
            return code
        is_short = is_short or resources.is_short_of_disk(recipe.run_dir)
        if is_short or heartbeat.cancelled.is_set() or shutting_down.is_set():
            recipe.interrupt()


def _saved(run_dir: Path) -> tuple[int, int]:
    """How far an attempt has got for the next one to go on from: step of its last checkpoint, bytes of completions."""
    steps = [step for step, _ in checkpoints_in(run_dir / "checkpoints")]
    completions = run_dir / "completions.jsonl"
    return max(steps, default=0), completions.stat().st_size if completions.is_file() else 0


def _finish(
    work: Work,
    recipe: Recipe,
    code: int,
    heartbeat: Heartbeat,
    end: Callable[[Any, Recipe, dict[str, Any]], None],
) -> None:
    result = recipe.result()
    unsaved = (
        f"It had not stopped {recipe.stop_seconds:g} seconds after it was asked to, and was ended: what it did since "
        "its last checkpoint is lost."
        if recipe.was_overdue
        else ""
    )
    if code == 0 and result.get("ok"):
        end(work, recipe, result)
    elif heartbeat.cancelled.is_set():
        end_work(work, WorkStatus.CANCELLED, result=result, error=unsaved)
    elif shutting_down.is_set():
        # Nobody's fault, so it costs no attempt.
        give_back(work, attempt_limit=work.attempt_limit + 1, error=unsaved)
    elif result.get("kind") == "recipe":
        # The researcher's mistake: another attempt would make it again.
        _fail(work, result["error"])
    elif result.get("kind") == "memory" or recipe.killed_for_memory:
        _out_of_memory(work, recipe, result)
    else:
        _again_or_fail(work, _reason(recipe, result, code))


def _reason(recipe: Recipe, result: dict[str, Any], code: int) -> str:
    said = result.get("error") or recipe.said(lines=3) or "it said nothing"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The {recipe.method} process {how}: {said}"


def _out_of_memory(work: Work, recipe: Recipe, result: dict[str, Any]) -> None:
    """Try a training run once more with half its micro-batch, which is no attempt the less; else say what to do."""
    happened = result.get("error") or f"The {recipe.method} process was ended by the kernel: memory ran out."
    if not isinstance(work, TrainingRun):
        _again_or_fail(work, happened)
        return
    options = work.recipe["options"]
    before, after = (resources.rows_together(work.method, options, work.halvings + n) for n in (0, 1))
    if resources.can_halve(work.method, options, work.halvings):
        said = (
            f"Memory ran out with {before} rows computed together. It is tried once more with {after}, "
            "each step in more parts."
        )
        recipe.note(said)
        give_back(work, error=said, halvings=work.halvings + 1, attempt_limit=work.attempt_limit + 1)
    else:
        _fail(
            work,
            f"{happened} It was tried with {before} rows computed together. "
            "Launch it with a lower max_length or batch_size, on a smaller base, or where there is more memory.",
        )


def _again_or_fail(work: Work, reason: str) -> None:
    """Queue another attempt while there is one left."""
    if work.attempt >= work.attempt_limit:
        _fail(work, reason)
    else:
        with suppress(LeaseLost):
            give_back(work, error=reason)


def _fail(work: Work, reason: str) -> None:
    with suppress(LeaseLost):
        end_work(work, WorkStatus.FAILED, error=reason)


# --- generation ---


def _generation_config(job: GenerationJob, run_dir: Path) -> dict[str, Any]:
    contestants = []
    base = store.fetch(job.base.digest)
    for contestant in job.contestants.order_by("pk"):
        checkpoint = checkpoint_of(contestant)
        adapter = None if checkpoint.is_whole else store.fetch(checkpoint.digest)
        if adapter is not None:
            check_trained(adapter, base=base)
        contestants.append(
            {
                "id": str(contestant.pk),
                "adapter": adapter and str(adapter),
                "system_prompt": contestant.system_prompt,
                "decoding": contestant.decoding,
            }
        )
    prompts = job.round.prompts.order_by("pk").values_list("pk", "messages")
    return {
        "method": "sampling",
        "base": str(base),
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


def training_config(run: TrainingRun, run_dir: Path) -> dict[str, Any]:
    """Write a run's data into its folder, as its method reads them; the config.json to go with them."""
    inputs = {item.role: item for item in run.inputs.select_related("checkpoint", "dataset")}
    dataset = inputs[RunInput.Role.DATA].dataset
    rows = list(rows_of(dataset))
    texts = {digest: store.get_text(digest) for digest in text_digests(rows)}
    lines, version_of_form = FORMS[METHODS[run.method].reads]
    for split in SPLITS:
        with (run_dir / f"{split}.jsonl").open("w") as file:
            for line in lines(rows, texts=texts, split=split):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    folders = {role: store.fetch(item.checkpoint.digest) for role, item in inputs.items() if item.checkpoint}
    base = folders.pop(RunInput.Role.BASE)
    for adapter in folders.values():
        check_trained(adapter, base=base)
    refuse_disagreement(base, {role.replace("_", " "): adapter for role, adapter in folders.items()})
    parent, reward_model = (folders.get(role) for role in (RunInput.Role.PARENT, RunInput.Role.REWARD_MODEL))
    return {
        "method": run.method,
        "base": str(base),
        "parent": parent and str(parent),
        "reward_model": reward_model and str(reward_model),
        "seed": run.seed,
        "threads": settings.TRAINING_THREADS or None,
        "accelerate": settings.ACCELERATE or None,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
        "data_version": version_of_form,
        "options": _options(run),
        "tracker": tracker_of(run),
    }


def _options(run: TrainingRun) -> dict[str, Any]:
    """The options as they were asked for; after memory ran out, fewer rows are computed together."""
    options = dict(run.recipe["options"])
    if run.halvings:
        options["micro_batch_size"] = resources.rows_together(run.method, options, run.halvings)
    return options


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
    """Publish the adapter or the whole model, then end the run and register its checkpoint in one transaction."""
    base = run.inputs.get(role=RunInput.Role.BASE).checkpoint
    kind = METHODS[run.method].makes
    base_folder, output = Path(recipe.read_json("config.json")["base"]), recipe.run_dir / "output"
    check_trained(output, base=base_folder, all_weights=run.trains_all_weights)
    about = {"kind": kind, "base": base.digest, "method": run.method, **fingerprints(base_folder)}
    digest = store.publish(output, about=about)
    with transaction.atomic():
        lock_held(run)
        end_work(run, WorkStatus.SUCCEEDED, result=result)
        register_result(run=run, kind=kind, digest=digest, base=base, metrics=result["metrics"])
