"""Judgments: append-only. Database triggers refuse to change or delete one (migration 0002)."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from annotation.models.projects import Guideline
from annotation.models.prompts import Completion
from annotation.models.rounds import Assignment, Comparison, Slot


class Judgment(models.Model):
    """What one annotator said of one comparison. A revision is a new row that supersedes the old one."""

    class Outcome(models.TextChoices):
        RANKED = "ranked"
        ALL_BAD = "all_bad", "all bad"  # not a tie: none of them should be learned from
        CANNOT_JUDGE = "cannot_judge", "cannot judge"
        DEMONSTRATED = "demonstrated"  # nothing was ranked: the annotator wrote the answer
        WITHDRAWN = "withdrawn"  # supersedes a judgment its author took back

    class Source(models.TextChoices):
        PERSON = "person"
        REHEARSAL = "rehearsal"  # a simulated annotator
        IMPORTED = "imported"
        MODEL_JUDGE = "model_judge", "model judge"

    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="judgments")
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="judgments")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="judgments"
    )
    # The slot it fills. None: a late answer whose slot was refilled, kept as surplus and not counted.
    slot = models.ForeignKey(Slot, null=True, on_delete=models.PROTECT, related_name="judgments")
    outcome = models.CharField(max_length=12, choices=Outcome)
    # How much better the preferred one of a pair is: 1 slightly, 2 clearly, 3 significantly. None: not said, or a tie.
    strength = models.PositiveSmallIntegerField(null=True)
    reason = models.TextField(blank=True)
    guideline = models.ForeignKey(Guideline, null=True, on_delete=models.PROTECT, related_name="judgments")
    active_seconds = models.FloatField(default=0)
    source = models.CharField(max_length=12, choices=Source)
    blind = models.BooleanField(default=True)
    submission_key = models.UUIDField(unique=True)
    body_hash = models.CharField(max_length=64)
    supersedes = models.OneToOneField(
        "self", null=True, on_delete=models.PROTECT, related_name="superseded_by"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # submit_judgment() relies on both: one first judgment an assignment, one counted judgment a slot.
            models.UniqueConstraint(
                fields=["assignment"], condition=Q(supersedes=None), name="one_first_judgment_per_assignment"
            ),
            models.UniqueConstraint(
                fields=["slot"], condition=Q(supersedes=None), name="one_counted_judgment_per_slot"
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=["ranked", "all_bad", "cannot_judge", "demonstrated", "withdrawn"]),
                name="known_outcome",
            ),
            models.CheckConstraint(
                condition=Q(source__in=["person", "rehearsal", "imported", "model_judge"]),
                name="known_source",
            ),
            models.CheckConstraint(condition=Q(active_seconds__gte=0), name="time_is_not_negative"),
            models.CheckConstraint(
                condition=Q(strength=None) | Q(strength__range=(1, 3), outcome="ranked"),
                name="strength_on_its_scale",
            ),
        ]
        indexes = [models.Index(fields=["annotator", "created_at"], name="my_judgments_by_time")]

    def __str__(self) -> str:
        return f"{self.outcome} by {self.annotator}"

    @property
    def is_counted(self) -> bool:
        return self.slot_id is not None


class RankedCompletion(models.Model):
    """What a judgment says of one completion. Rank 1 is best, equal ranks are a tie; None: nothing was ranked."""

    judgment = models.ForeignKey(Judgment, on_delete=models.PROTECT, related_name="ranking")
    # Repeated from the judgment, so that composite foreign keys can hold the completion within its comparison.
    comparison = models.ForeignKey(
        Comparison, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    completion = models.ForeignKey(
        Completion, on_delete=models.DO_NOTHING, related_name="rankings", db_constraint=False
    )
    rank = models.PositiveSmallIntegerField(null=True)
    flags = ArrayField(models.CharField(max_length=30), default=list)
    aspects = models.JSONField(default=dict)
    comment = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["judgment", "completion"], name="a_completion_once_per_judgment"),
            models.CheckConstraint(condition=Q(rank__range=(1, 8)), name="rank_in_range"),
        ]

    def __str__(self) -> str:
        return f"{self.completion_id} at {self.rank}"
