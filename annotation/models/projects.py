"""Projects, who may do what in them, and the guideline annotators work by."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


class Project(models.Model):
    """A body of prompts and everything judged and trained from them."""

    slug = models.SlugField(unique=True, max_length=60)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # The defaults of a new round, and what holds for every page of the project.
    overlap = models.PositiveSmallIntegerField(
        default=2,
        validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="How many annotators judge each comparison.",
    )
    completions_per_comparison = models.PositiveSmallIntegerField(
        default=4,
        validators=[MinValueValidator(2), MaxValueValidator(8)],
        help_text="How many completions are ranked together, 2 to 8.",
    )
    lease_minutes = models.PositiveSmallIntegerField(
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(240)],
        help_text="How long a comparison stays reserved for the annotator who opened it.",
    )
    max_prompt_tokens = models.PositiveIntegerField(
        default=512,
        validators=[MinValueValidator(16)],
        help_text="Longer prompts are refused at import.",
    )
    is_paused = models.BooleanField(default=False, help_text="While paused, nobody is given new comparisons.")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's role in a project. Roles include those below them, except that only annotators' work is blind."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator"  # ranks
        REVIEWER = "reviewer"  # and reads others' judgments
        RESEARCHER = "researcher"  # and launches rounds, reads runs and comparisons
        ADMIN = "admin"  # and changes settings and members

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role)

    class Meta:
        constraints = [
            # add_member() relies on it: one role a person and project.
            models.UniqueConstraint(fields=["project", "user"], name="one_membership_per_user"),
            models.CheckConstraint(
                condition=models.Q(role__in=["annotator", "reviewer", "researcher", "admin"]),
                name="known_role",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} as {self.role}"


class Guideline(models.Model):
    """One version of the text annotators work by. A judgment keeps the version it was made under."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guidelines")
    version = models.PositiveIntegerField()
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="one_guideline_per_version")
        ]

    def __str__(self) -> str:
        return f"guideline v{self.version}"
