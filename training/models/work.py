"""Long work: generation jobs and training runs. The row is the truth; a worker holds it by a lease.

`attempt` is the fencing token: it grows with each claim, and every later write names it.
"""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from annotation.models import Contestant, Project, Round
from training.models.checkpoints import Checkpoint
from training.models.data import PreferenceDataset
from training.recipes.options import METHODS


class WorkStatus(models.TextChoices):
    DRAFT = "draft"  # a training run that is looked over before its launch; no worker takes it
    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker holds the lease
    CANCELLING = "cancelling"  # a person asked to stop; the worker saves first
    SUCCEEDED = "succeeded"  # its results are published and registered
    FAILED = "failed"  # `error` says why; its folder is kept
    CANCELLED = "cancelled"


def default_attempt_limit() -> int:
    """How often work is tried before it fails for good; a retry by a person allows as many again."""
    return settings.MAX_ATTEMPTS


class Work(models.Model):
    """What a generation job and a training run have in common: being claimed, leased, retried and ended."""

    claimed_in_order_of: tuple[str, ...] = ("created_at",)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(max_length=10, choices=WorkStatus, default=WorkStatus.QUEUED)
    attempt = models.PositiveIntegerField(default=0)
    attempt_limit = models.PositiveIntegerField(default=default_attempt_limit)
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=200, blank=True)
    seed = models.BigIntegerField(default=0)
    # {"step", "of", "phase"} as the recipe last said.
    progress = models.JSONField(default=dict)
    result = models.JSONField(default=dict)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @property
    def is_over(self) -> bool:
        return self.status in (WorkStatus.SUCCEEDED, WorkStatus.FAILED, WorkStatus.CANCELLED)

    @property
    def seconds(self) -> float | None:
        """Wall seconds of the latest attempt, None while it has not ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class GenerationJob(Work):
    """Completions of some contestants, who share a base, for a round's prompts."""

    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="generation_jobs")
    base = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="generation_jobs")
    contestants = models.ManyToManyField(Contestant, related_name="generation_jobs")

    class Meta:
        constraints = [
            # queue_generation() relies on it: run twice, it queues once.
            models.UniqueConstraint(fields=["round", "base"], name="one_generation_job_per_base")
        ]

    def __str__(self) -> str:
        return f"generation for {self.round}"


class TrainingRun(Work):
    """One training of one method, from frozen inputs to at most one checkpoint."""

    claimed_in_order_of = ("-priority", "created_at")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="runs")
    round = models.ForeignKey(Round, null=True, on_delete=models.PROTECT, related_name="runs")
    step = models.CharField(max_length=40)  # its name within the round's training plan
    method = models.CharField(max_length=20)
    # The recipe's options, complete with defaults and thread count: enough to run it again.
    recipe = models.JSONField(default=dict)
    code_version = models.CharField(max_length=60, blank=True)
    # The higher one is claimed first.
    priority = models.IntegerField(default=0)
    # How often the micro-batch was halved because memory ran out; the recipe's own options stay as they were asked for.
    halvings = models.PositiveSmallIntegerField(default=0)
    duplicate_of = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="duplicates")
    # What was found when a draft was looked over: sizes, what would be cut, examples, estimates, what forbids a launch.
    findings = models.JSONField(default=dict)
    # Of a run launched by hand: sent twice, it is one run.
    launch_key = models.UUIDField(null=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        constraints = [
            # queue_training() relies on it: run twice, it queues once.
            models.UniqueConstraint(fields=["round", "step"], name="one_run_per_step"),
            # launch_run() relies on it: two launches make one.
            models.UniqueConstraint(fields=["project", "launch_key"], name="one_run_per_launch_key"),
        ]

    def __str__(self) -> str:
        return f"{self.step} of {self.round}" if self.round else f"{self.step} {str(self.id)[:8]}"

    @property
    def trains_all_weights(self) -> bool:
        """Whether it makes whole weights, not an adapter."""
        return self.recipe.get("options", {}).get("weights") == "full"

    @property
    def learns_from_rewards(self) -> bool:
        """Whether it learns from completions it samples itself."""
        return self.method in METHODS and METHODS[self.method].samples


class RunInputs(models.QuerySet["RunInput"]):
    def learnt_from(self) -> "RunInputs":
        """Without reward models that only measured what a run had learnt from data."""
        sampling = [name for name, method in METHODS.items() if method.samples]
        return self.exclude(Q(role=RunInput.Role.REWARD_MODEL) & ~Q(run__method__in=sampling))


class RunInput(models.Model):
    """What a run read: exactly one checkpoint or one dataset in each role."""

    class Role(models.TextChoices):
        BASE = "base"
        PARENT = "parent"  # the adapter training goes on from; without it, a fresh one on the base
        REWARD_MODEL = "reward_model", "reward model"
        DATA = "data"

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="inputs")
    role = models.CharField(max_length=14, choices=Role)
    checkpoint = models.ForeignKey(Checkpoint, null=True, on_delete=models.PROTECT, related_name="used_by")
    dataset = models.ForeignKey(
        PreferenceDataset, null=True, on_delete=models.PROTECT, related_name="used_by"
    )
    objects = RunInputs.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "role"], name="one_input_per_role"),
            models.CheckConstraint(
                condition=Q(role="data", dataset__isnull=False, checkpoint=None)
                | Q(role__in=["base", "parent", "reward_model"], dataset=None, checkpoint__isnull=False),
                name="checkpoint_or_dataset",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} of {self.run}"


class RunMetric(models.Model):
    """One measurement of a run's attempt."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="metrics")
    attempt = models.PositiveIntegerField()
    step = models.PositiveIntegerField()
    name = models.CharField(max_length=60)
    value = models.FloatField()

    class Meta:
        constraints = [
            # The supervisor reads metrics.jsonl again after a restart and relies on it.
            models.UniqueConstraint(fields=["run", "attempt", "step", "name"], name="one_value_per_step")
        ]

    def __str__(self) -> str:
        return f"{self.name}={self.value} at {self.step}"
