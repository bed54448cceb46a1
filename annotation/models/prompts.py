"""Prompts, the contestants that answer them, and their completions."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from annotation.models.projects import Project


class Prompt(models.Model):
    """A conversation to be answered: `[{"role", "content"}, ...]`, the last turn being the user's."""

    class Split(models.TextChoices):
        TRAIN = "train"
        HELD_OUT = "held_out", "held-out"  # never trained on, in any project of this installation

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages = models.JSONField()
    content_hash = models.CharField(max_length=64)
    # Set once, by a salted hash of the first user turn: annotation.splits.
    split = models.CharField(max_length=10, choices=Split)
    tags = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    source = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # Importing the same file twice relies on it.
            models.UniqueConstraint(fields=["project", "content_hash"], name="one_prompt_per_content"),
            models.CheckConstraint(condition=models.Q(split__in=["train", "held_out"]), name="known_split"),
        ]

    def __str__(self) -> str:
        return self.last_turn[:80]

    @property
    def last_turn(self) -> str:
        """The user's last turn, which is what is answered."""
        return self.messages[-1]["content"]


class Contestant(models.Model):
    """A source of completions, immutable: a checkpoint with a system prompt, a retriever and a decoding, or a person.

    training.Checkpoint points at its contestants; nothing here points back.
    """

    class Kind(models.TextChoices):
        POLICY = "policy"
        PERSON = "person"
        IMPORTED = "imported"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="contestants")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.POLICY)
    system_prompt = models.TextField(blank=True)
    retriever = models.CharField(max_length=120, blank=True)
    decoding = models.JSONField(default=dict)
    # SHA-256 over checkpoint content, system prompt, retriever and decoding: annotation.services.contestants.
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # register_contestant() relies on it: the same source is the same contestant.
            models.UniqueConstraint(fields=["project", "digest"], name="one_contestant_per_digest")
        ]

    def __str__(self) -> str:
        return self.name


class Completion(models.Model):
    """One answer to a prompt, with what is needed to make it again.

    Answers of people (edited answers and demonstrations) belong to the judgment they came with, and count while that
    judgment does. They are reviewed before anything learns from them.
    """

    class Review(models.TextChoices):
        NONE = "", "none"  # written by a model: not subject to review
        WAITING = "waiting"
        APPROVED = "approved"  # datasets take it in
        DECLINED = "declined"

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="completions")
    contestant = models.ForeignKey(Contestant, on_delete=models.PROTECT, related_name="completions")
    sample_index = models.PositiveIntegerField()
    text = models.TextField()
    finished = models.BooleanField(default=True)  # false: cut off at the limit of new tokens
    token_count = models.PositiveIntegerField(null=True)
    engine = models.CharField(max_length=40, blank=True)
    engine_version = models.CharField(max_length=40, blank=True)
    # A seed means nothing without its batch, and a batch nothing without its job.
    job = models.UUIDField(null=True)
    batch = models.PositiveIntegerField(null=True)
    seed = models.BigIntegerField(null=True)
    edited_from = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="edits")
    judgment = models.ForeignKey(
        "annotation.Judgment", null=True, on_delete=models.PROTECT, related_name="written"
    )
    review = models.CharField(max_length=10, choices=Review, blank=True, default=Review.NONE)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )
    reviewed_at = models.DateTimeField(null=True)
    review_note = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # A resumed generation job relies on it.
            models.UniqueConstraint(
                fields=["prompt", "contestant", "sample_index"], name="one_completion_per_sample"
            ),
            # The review queue relies on it: what a person wrote is reviewed, what a model wrote is not.
            models.CheckConstraint(
                condition=models.Q(review="", judgment=None)
                | models.Q(review__in=["waiting", "approved", "declined"], judgment__isnull=False),
                name="written_answers_are_reviewed",
            ),
        ]
        indexes = [
            models.Index(
                fields=["created_at"], condition=models.Q(review="waiting"), name="answers_waiting_for_review"
            )
        ]

    def __str__(self) -> str:
        return self.text[:80]
