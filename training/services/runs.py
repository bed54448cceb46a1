"""Queueing generation jobs and training runs from frozen inputs."""

from functools import lru_cache
from importlib.metadata import version

from django.conf import settings
from django.db import transaction

from annotation.models import Contestant, Round
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Refused
from training.models import Checkpoint, GenerationJob, PreferenceDataset, RunInput, TrainingRun
from training.plans import checked_plan
from training.services.checkpoints import checkpoint_of
from training.services.work import request_cancel

# Fewer pairs than this teach nothing but their own noise.
FEWEST_PAIRS = 8


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of this code, kept with each run."""
    return version("rankloop")


def base_of(checkpoint: Checkpoint) -> Checkpoint:
    """The base a checkpoint stands on, itself when it is one."""
    return checkpoint.base or checkpoint


@transaction.atomic
def queue_generation(*, round: Round) -> list[GenerationJob]:
    """One job for each base model whose contestants have completions to make. Run twice, it queues once."""
    if _is_cancelled(round):
        return []
    with_job = set(round.generation_jobs.values_list("base_id", flat=True))
    by_base: dict[Checkpoint, list[Contestant]] = {}
    for contestant in round.contestants.order_by("pk"):
        base = base_of(checkpoint_of(contestant))
        if base.pk not in with_job and _has_gaps(round, contestant):
            by_base.setdefault(base, []).append(contestant)
    for base, contestants in by_base.items():
        job = GenerationJob.objects.create(round=round, base=base, seed=round.seed)
        job.contestants.set(contestants)
    return list(round.generation_jobs.all())


def _is_cancelled(round: Round) -> bool:
    """Whether a person was faster. Locks the round, so that it can't be cancelled while its work is being queued."""
    return Round.objects.select_for_update().get(pk=round.pk).status == Round.Status.CANCELLED


def _has_gaps(round: Round, contestant: Contestant) -> bool:
    """Whether the contestant has not yet answered each of the round's prompts as often as it should."""
    samples = range(round.first_sample, round.first_sample + round.samples_per_contestant)
    made = contestant.completions.filter(prompt__rounds=round, sample_index__in=samples).count()
    return made < round.prompts.count() * round.samples_per_contestant


def parent_of(*, round: Round) -> Checkpoint:
    """The checkpoint that a round's policies go on from: that of its newest contestant.

    Contestants are made as checkpoints are, so the newest stands on the newest policy; in a first round it is the base.
    """
    newest = round.contestants.order_by("-pk").first()
    if newest is None:
        raise Refused("The round has no contestant.")
    return checkpoint_of(newest)


@transaction.atomic
def queue_training(*, round: Round, dataset: PreferenceDataset) -> list[TrainingRun]:
    """The runs of a round's training plan on a frozen dataset. Run twice, it queues once.

    Raises Refused when the dataset has too few pairs to train on or none to measure with.
    """
    pairs, held_out = dataset.counts["train_pairs"], dataset.counts["held_out_pairs"]
    if round.training_plan and pairs < FEWEST_PAIRS:
        raise Refused(
            f"The rankings give {pairs} pairs of the train split, and training needs at least {FEWEST_PAIRS}. "
            "Rank more, or skip this step."
        )
    if round.training_plan and held_out == 0:
        raise Refused(
            "No held-out prompt was ranked, so nothing could be measured. Rank some, or skip this step."
        )
    if _is_cancelled(round):
        return []
    parent = parent_of(round=round)
    runs = []
    for step in checked_plan(round.training_plan):
        run, created = TrainingRun.objects.get_or_create(
            round=round,
            step=step["step"],
            defaults={
                "project_id": round.project_id,
                "method": step["method"],
                "seed": round.seed,
                "recipe": {"options": step["options"], "threads": settings.TRAINING_THREADS or None},
                "code_version": code_version(),
                "created_by": round.created_by,
            },
        )
        if created:
            RunInput.objects.create(run=run, role=RunInput.Role.BASE, checkpoint=base_of(parent))
            RunInput.objects.create(run=run, role=RunInput.Role.DATA, dataset=dataset)
            # A reward model starts on the base; a policy goes on from the policy that was judged.
            if step["method"] != "reward" and parent.kind == Checkpoint.Kind.POLICY:
                RunInput.objects.create(run=run, role=RunInput.Role.PARENT, checkpoint=parent)
            record("run queued", actor=round.created_by, project=round.project.slug, subject=str(run.pk))
        runs.append(run)
    return runs


@transaction.atomic
def cancel_run(*, run: TrainingRun, user: User) -> None:
    """Ask a run to save and stop. One that is over stays as it is."""
    if run.is_over:
        return
    request_cancel(run)
    record("run cancelled", actor=user, project=run.project.slug, subject=str(run.pk))
