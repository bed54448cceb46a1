"""Rounds and the work in them: comparisons, the slots to be filled, and who works on what."""

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from annotation.models.projects import Project
from annotation.models.prompts import Completion, Contestant, Prompt


class Round(models.Model):
    """What is judged together. Annotation acts on `ranking` alone; the driver in training moves the others on."""

    class Status(models.TextChoices):
        DRAFT = "draft"  # may still be changed; nothing has been made for it
        GENERATING = "generating"  # prompts are chosen and frozen, completions are being made
        RANKING = "ranking"  # comparisons and slots exist; annotators are given them
        TRAINING = "training"  # no slot is open any more; a dataset is frozen and runs work through the plan
        EVALUATING = "evaluating"  # every run has ended; contestants and checkpoints are being measured
        CLOSED = "closed"  # nothing more happens by itself
        CANCELLED = "cancelled"  # stopped by a person; what was judged stays

    class Kind(models.TextChoices):
        RANKING = "ranking"  # contestants write, annotators rank
        DEMONSTRATION = "demonstration"  # annotators write the ideal answer; no contestants

    class Audience(models.TextChoices):
        PEOPLE = "people"
        REHEARSAL = "rehearsal"  # simulated annotators only, and marked as such everywhere

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=120)
    status = models.CharField(max_length=12, choices=Status, default=Status.DRAFT)
    kind = models.CharField(max_length=13, choices=Kind, default=Kind.RANKING)
    audience = models.CharField(max_length=12, choices=Audience, default=Audience.PEOPLE)
    priority = models.IntegerField(
        default=0, help_text="Higher is ranked first while several rounds are open."
    )
    overlap = models.PositiveSmallIntegerField(
        default=2,
        validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="How many annotators judge each comparison.",
    )
    completions_per_comparison = models.PositiveSmallIntegerField(
        default=4,
        validators=[MinValueValidator(2), MaxValueValidator(8)],
        help_text="How many completions are ranked together.",
    )
    samples_per_contestant = models.PositiveSmallIntegerField(
        default=2,
        validators=[MinValueValidator(1), MaxValueValidator(8)],
        help_text="How many completions each contestant writes for each prompt.",
    )
    train_prompts = models.PositiveIntegerField(
        default=100, help_text="At most this many prompts of the train split."
    )
    held_out_prompts = models.PositiveIntegerField(
        default=40, help_text="At most this many held-out prompts. Win rates come from these alone."
    )
    # Completions of the round are samples first_sample, first_sample + 1, ...: fresh ones, unless a round is told to
    # show those of an earlier one again.
    first_sample = models.PositiveIntegerField(null=True, blank=True)
    seed = models.PositiveIntegerField(default=0)
    contestants = models.ManyToManyField(Contestant, related_name="rounds")
    prompts = models.ManyToManyField(Prompt, related_name="rounds")  # frozen at launch
    # [{"step": "dpo", "method": "dpo", "options": {...}}, ...]; may be empty. Checked by training at launch.
    training_plan = models.JSONField(default=list, blank=True)
    deadline = models.DateTimeField(null=True, blank=True, help_text="Ranking ends then at the latest.")
    launch_key = models.UUIDField(null=True)
    # Why the present step can't go on; empty while all is well. Retry or skip clears it.
    failure = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    status_since = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_round_per_number"),
            # Two launches at once make one round: launch_round() relies on it.
            models.UniqueConstraint(fields=["project", "launch_key"], name="one_round_per_launch_key"),
            # The claim query relies on it: simulated annotators and people never meet in a round.
            models.CheckConstraint(condition=Q(audience__in=["people", "rehearsal"]), name="known_audience"),
            models.CheckConstraint(
                condition=Q(kind="ranking") | Q(kind="demonstration", audience="people"), name="known_kind"
            ),
            models.CheckConstraint(
                condition=Q(overlap__gte=1)
                & Q(completions_per_comparison__range=(2, 8))
                & Q(samples_per_contestant__range=(1, 8)),
                name="round_sizes_in_range",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_rehearsal(self) -> bool:
        return self.audience == self.Audience.REHEARSAL

    @property
    def is_demonstration(self) -> bool:
        return self.kind == self.Kind.DEMONSTRATION

    @property
    def stage(self) -> str:
        """What pages call the status: in a demonstration round annotators write."""
        is_writing = self.is_demonstration and self.status == self.Status.RANKING
        return "writing" if is_writing else self.get_status_display()


class Comparison(models.Model):
    """One prompt and the completions that are ranked together (none for a demonstration)."""

    class Kind(models.TextChoices):
        REGULAR = "regular"
        GOLD = "gold"  # the right order is known
        REPEAT = "repeat"  # `copy_of` is shown again to the same person
        ADJUDICATION = "adjudication"  # `copy_of` was disputed
        DEMONSTRATION = "demonstration"  # nothing to rank: the annotator writes the answer

    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="comparisons")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="comparisons")
    ordinal = models.PositiveIntegerField()
    kind = models.CharField(max_length=14, choices=Kind, default=Kind.REGULAR)
    copy_of = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="copies")
    completions = models.ManyToManyField(
        Completion, through="ComparisonCompletion", related_name="comparisons"
    )
    # Why this one was chosen, and with what probability: what a weighted estimate needs later.
    selected_because = models.CharField(max_length=60, default="every prompt of the round")
    selection_probability = models.FloatField(default=1.0)

    class Meta:
        constraints = [
            # open_comparisons() relies on it: run twice, it adds nothing.
            models.UniqueConstraint(fields=["round", "ordinal"], name="one_comparison_per_ordinal"),
            models.CheckConstraint(
                condition=Q(selection_probability__gt=0) & Q(selection_probability__lte=1),
                name="a_probability",
            ),
        ]

    def __str__(self) -> str:
        return f"comparison {self.ordinal} of {self.round}"


class ComparisonCompletion(models.Model):
    """A completion within a comparison. RankedCompletion has a composite foreign key to it (migration 0002)."""

    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="entries")
    completion = models.ForeignKey(Completion, on_delete=models.PROTECT, related_name="entries")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "completion"], name="a_completion_once_per_comparison"
            )
        ]

    def __str__(self) -> str:
        return f"{self.completion} in {self.comparison}"


class Assignment(models.Model):
    """That one annotator works, or worked, on one comparison. It outlives the slot it held."""

    class State(models.TextChoices):
        OPEN = "open"  # leased; the slot that points here is held
        SUBMITTED = "submitted"  # a judgment exists
        SKIPPED = "skipped"  # never offered to this annotator again
        EXPIRED = "expired"  # the lease ran out or was given back; a late answer is still taken

    # Random, because the annotator sees it: a serial or time-ordered id would give the contestant away.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="assignments")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="assignments"
    )
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    lease_until = models.DateTimeField()
    claimed_at = models.DateTimeField()
    # The slot position claimed last: the next claim looks on from there instead of from the start.
    position = models.BigIntegerField()
    # Completion ids in the order this annotator sees them: position k on the page is shown_order[k - 1].
    shown_order = ArrayField(models.BigIntegerField())
    draft = models.JSONField(null=True)
    reason = models.TextField(blank=True)  # of a skip
    # A leak phrase was masked in what this annotator saw: their judgment is as blind as it could be made.
    leak_masked = models.BooleanField(default=False, db_default=False)

    class Meta:
        constraints = [
            # Nobody judges a comparison twice: the claim's ON CONFLICT relies on it.
            models.UniqueConstraint(fields=["comparison", "annotator"], name="one_assignment_per_annotator"),
            models.CheckConstraint(
                condition=Q(state__in=["open", "submitted", "skipped", "expired"]),
                name="known_assignment_state",
            ),
        ]
        indexes = [
            models.Index(fields=["annotator"], condition=Q(state="open"), name="open_leases_by_annotator"),
            models.Index(fields=["lease_until"], condition=Q(state="open"), name="open_leases_by_time"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Report(models.Model):
    """That an annotator found something wrong with a prompt or its completions. It is skipped, and looked into."""

    class Category(models.TextChoices):
        BROKEN = "broken", "broken or unreadable text"
        PERSONAL = "personal", "personal data"
        ILLEGAL = "illegal", "illegal or dangerous"
        NONSENSE = "nonsense", "the prompt makes no sense"
        LEAK = "leak", "tells who wrote it"
        OTHER = "other", "something else"

    assignment = models.OneToOneField(Assignment, on_delete=models.PROTECT, related_name="report")
    category = models.CharField(max_length=10, choices=Category)
    text = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )
    resolution = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(category__in=["broken", "personal", "illegal", "nonsense", "leak", "other"]),
                name="known_report_category",
            )
        ]

    def __str__(self) -> str:
        return f"report of {self.get_category_display()}"


class Slot(models.Model):
    """One of the `overlap` judgments a comparison needs. Claims lock these rows: see annotation.services.claims."""

    class State(models.TextChoices):
        OPEN = "open"  # nobody works on it
        HELD = "held"  # leased to the assignment it points at
        FILLED = "filled"  # that assignment's judgment is counted
        CLOSED = "closed"  # ranking ended without it

    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="slots")
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="slots")
    number = models.PositiveSmallIntegerField()
    # Order of claiming within the round: every comparison once before any twice.
    position = models.BigIntegerField()
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    reserved_for = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="reserved_slots"
    )
    assignment = models.OneToOneField(Assignment, null=True, on_delete=models.PROTECT, related_name="slot")

    class Meta:
        constraints = [
            # open_comparisons() relies on it; with it no comparison has more slots than its overlap.
            models.UniqueConstraint(fields=["comparison", "number"], name="one_slot_per_number"),
            models.UniqueConstraint(fields=["round", "position"], name="one_slot_per_position"),
            # Claims and the end of ranking rely on it: an open slot has no holder, a held or filled one has.
            models.CheckConstraint(
                condition=Q(state__in=["open", "closed"], assignment=None)
                | Q(state__in=["held", "filled"], assignment__isnull=False),
                name="held_means_assigned",
            ),
        ]
        indexes = [
            models.Index(fields=["round", "position"], condition=Q(state="open"), name="open_slots_in_order"),
        ]

    def __str__(self) -> str:
        return f"slot {self.number} of {self.comparison}"


# What a claim writes into `position`: all first slots come before all second ones.
SLOT_STRIDE = 1_000_000_000
