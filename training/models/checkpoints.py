"""Checkpoints, the contestants they became, and what was measured of them."""

from django.db import models
from django.db.models import Q

from annotation.models import Contestant, Project, Round


class Checkpoint(models.Model):
    """Published weights: a folder in the artifact store, named by the digest of its manifest."""

    class Kind(models.TextChoices):
        BASE = "base"  # whole weights that nothing here has trained
        POLICY = "policy"  # writes
        REWARD = "reward"  # judges, by a score head

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="checkpoints")
    name = models.CharField(max_length=120)  # permanent
    kind = models.CharField(max_length=8, choices=Kind)
    # Not unique: a reproduction of a run is equal.
    digest = models.CharField(max_length=64, db_index=True)
    # What its training started from: an adapter needs it beside, whole weights do not.
    base = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="adapters")
    all_weights = models.BooleanField(
        default=False,
        help_text="All weights were trained; else a trained checkpoint is a LoRA adapter on its base.",
    )
    run = models.OneToOneField(
        "training.TrainingRun", null=True, on_delete=models.PROTECT, related_name="checkpoint"
    )
    contestants = models.ManyToManyField(
        Contestant, through="CheckpointContestant", related_name="checkpoints"
    )
    metrics = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="one_checkpoint_per_name"),
            models.CheckConstraint(
                condition=Q(kind="base", base=None) | Q(kind__in=["policy", "reward"], base__isnull=False),
                name="an_adapter_has_a_base",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_whole(self) -> bool:
        """Whether it can be opened by itself, and adapters can be trained on it."""
        return self.kind == self.Kind.BASE or self.all_weights


class CheckpointContestant(models.Model):
    """That a contestant's completions are written by a checkpoint's weights."""

    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="entries")
    contestant = models.ForeignKey(Contestant, on_delete=models.PROTECT, related_name="entries")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["checkpoint", "contestant"], name="a_contestant_once_per_checkpoint"
            )
        ]

    def __str__(self) -> str:
        return f"{self.contestant} by {self.checkpoint}"


class Evaluation(models.Model):
    """One measurement of a contestant or a checkpoint, on held-out prompts only."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="evaluations")
    round = models.ForeignKey(Round, null=True, on_delete=models.PROTECT, related_name="evaluations")
    contestant = models.ForeignKey(
        Contestant, null=True, on_delete=models.PROTECT, related_name="evaluations"
    )
    checkpoint = models.ForeignKey(
        Checkpoint, null=True, on_delete=models.PROTECT, related_name="evaluations"
    )
    suite = models.CharField(max_length=200)
    suite_version = models.CharField(max_length=40)
    decoding_digest = models.CharField(max_length=64, blank=True)
    result = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(contestant=None, checkpoint__isnull=False)
                | Q(contestant__isnull=False, checkpoint=None),
                name="one_subject_per_evaluation",
            ),
            # finish_evaluations() relies on it: measured twice, kept once.
            models.UniqueConstraint(
                fields=["contestant", "checkpoint", "suite", "suite_version", "decoding_digest"],
                nulls_distinct=False,
                name="one_evaluation_per_suite",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.suite} of {self.contestant or self.checkpoint}"
