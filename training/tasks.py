"""Celery's doorbells for training. A message carries an id; the row decides; each task may run twice."""

from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.conf import settings

from training import looking_over, worker
from training.models import GenerationJob, TrainingRun
from training.services import rounds
from training.services.launching import next_draft
from training.services.work import return_lost, to_claim


@worker_shutting_down.connect
def save_what_runs(**_: Any) -> None:
    """A worker that is asked to stop lets its recipe save a checkpoint first."""
    worker.shutting_down.set()


@shared_task
def run_generation(job_id: str) -> None:
    worker.run_generation(job_id)
    advance_rounds.delay()


@shared_task
def run_training(run_id: str) -> None:
    worker.run_training(run_id)
    advance_rounds.delay()


@shared_task
def check_run(run_id: str) -> None:
    looking_over.check_run(run_id)


@shared_task
def advance_rounds() -> None:
    """Carry every active round on, then ring for work that waits while workers are idle."""
    for round_id in rounds.active_round_ids():
        rounds.advance_round(round_id=round_id)
    ring()


@shared_task
def sweep_lost_work() -> None:
    return_lost(GenerationJob)
    return_lost(TrainingRun)
    ring()


def ring() -> None:
    """Ring for the first waiting rows, as many as workers are idle, and for a draft that was not looked over.

    A doorbell too many finds nothing to claim.
    """
    for kind, task, workers in (
        (GenerationJob, run_generation, settings.GENERATION_WORKERS),
        (TrainingRun, run_training, settings.TRAINING_WORKERS),
    ):
        for waiting in to_claim(kind, workers):
            task.apply_async([str(waiting.pk)], expires=30)
    draft = next_draft()
    if draft is not None:
        check_run.apply_async([str(draft.pk)], expires=30)
