"""Projects, who may do what in them, and the guideline annotators work by."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

# Digits toggle flags on the ranking page, and there are nine.
MOST_FLAGS = 9
MOST_ASPECTS = 6
ASPECT_POINTS = 5  # an aspect is rated 1 to 5


def default_flags() -> list[str]:
    """What may be said of a completion beside its rank."""
    return ["factually wrong", "unsafe", "off-topic", "wrong format", "other"]


def default_leak_phrases() -> list[str]:
    """What only a model that names itself would say. Ordinary words (Claude Monet) are left to the project."""
    return ["SmolLM", "ChatGPT", "trained by OpenAI", "trained by Hugging Face", "made by Anthropic"]


def default_sensitive_categories() -> list[str]:
    """Tags of prompts that are blurred until asked for and that an annotator may opt out of."""
    return ["violence", "sexual", "self-harm", "hate"]


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
    strength_levels = models.PositiveSmallIntegerField(
        default=3,
        choices=[
            (1, "which is better, nothing more"),
            (2, "slightly better, better"),
            (3, "slightly better, better, significantly better"),
        ],
        help_text="What annotators say about a pair, with the same keystroke. It is kept in the datasets.",
    )
    flags = ArrayField(
        models.CharField(max_length=30),
        default=default_flags,
        blank=True,
        size=MOST_FLAGS,
        help_text="What may be said of a completion beside its rank: one a line, at most nine.",
    )
    aspects = ArrayField(
        models.CharField(max_length=40),
        default=list,
        blank=True,
        size=MOST_ASPECTS,
        help_text="What each completion may be rated on from 1 to 5, such as helpfulness, honesty, tone, format: one "
        "a line, at most six. Leave it empty to ask for the ranking alone.",
    )
    leak_phrases = ArrayField(
        models.CharField(max_length=100),
        default=default_leak_phrases,
        blank=True,
        help_text="Phrases that tell who wrote a completion, one a line. They are masked before an annotator sees "
        "them, and the judgment is marked.",
    )
    sensitive_categories = ArrayField(
        models.CharField(max_length=60),
        default=default_sensitive_categories,
        blank=True,
        help_text="Tags of prompts that may disturb, one a line. Annotators can opt out of each.",
    )
    blur_sensitive = models.BooleanField(
        default=True, help_text="Sensitive prompts stay blurred until the annotator asks to see them."
    )
    revise_minutes = models.PositiveSmallIntegerField(
        default=30,
        validators=[MaxValueValidator(10_080)],
        help_text="How long annotators may revise a judgment they have sent. 0: not at all.",
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
    # Sensitive categories this member does not want to see: the claim query obeys.
    opted_out = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    guideline_read = models.PositiveIntegerField(default=0)  # the version opened last; 0: none yet
    joined_at = models.DateTimeField(default=timezone.now)

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
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="one_guideline_per_version")
        ]

    def __str__(self) -> str:
        return f"guideline v{self.version}"


class Invitation(models.Model):
    """A link that lets people into a project with a role. Only the SHA-256 of its token is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=20, choices=Membership.Role)
    digest = models.CharField(max_length=64, unique=True)
    places = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(500)],
        help_text="How many people may join by this link.",
    )
    used = models.PositiveSmallIntegerField(default=0)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # accept_invitation() relies on it: two people at once don't share the last place.
            models.CheckConstraint(
                condition=models.Q(used__lte=models.F("places")), name="no_more_than_places"
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=["annotator", "reviewer", "researcher", "admin"]),
                name="known_invited_role",
            ),
        ]

    def __str__(self) -> str:
        return f"invitation of {self.places} as {self.role}"
