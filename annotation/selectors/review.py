"""What waits for a reviewer: answers that people wrote, and reports of something wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import QuerySet

from annotation.access import REVIEWERS
from annotation.differences import changes_html
from annotation.leaks import MASK
from annotation.models import Completion, Membership, Project, Report, Round
from annotation.rendering import mark_hidden, safe_html
from rankloop.accounts.models import User


def written_answers(project: Project, *, review: str = Completion.Review.WAITING) -> QuerySet[Completion]:
    """Answers people wrote, by how they were reviewed.

    Those of judgments that were revised or withdrawn, or came too late to count, are left out.
    """
    return Completion.objects.filter(
        prompt__project=project, review=review, judgment__superseded_by=None, judgment__slot__isnull=False
    ).select_related(
        "prompt", "edited_from", "reviewed_by", "judgment__annotator", "judgment__comparison__round"
    )


def waiting_in(rounds: Sequence[Round]) -> int:
    """How many written answers of these rounds nobody has reviewed."""
    if not rounds:
        return 0
    waiting = written_answers(rounds[0].project).filter(judgment__comparison__round__in=rounds)
    return waiting.order_by().count()


def reports_of(project: Project, *, resolved: bool = False) -> QuerySet[Report]:
    """Reports of the project, those that were resolved or those that were not."""
    return Report.objects.filter(
        assignment__comparison__round__project=project, resolved_at__isnull=not resolved
    ).select_related(
        "resolved_by",
        "assignment__annotator",
        "assignment__comparison__round",
        "assignment__comparison__prompt",
    )


def waiting_for_review(project: Project) -> int:
    """How much waits on the review page: answers and open reports."""
    return written_answers(project).count() + reports_of(project).count()


def has_other_reviewer(project: Project, user: User) -> bool:
    """Whether anybody else in the project may review. Where nobody may, one's own answers are one's own to review."""
    others = Membership.objects.filter(project=project, role__in=REVIEWERS, user__is_active=True)
    return others.exclude(user=user).exists()


@dataclass(frozen=True)
class ShownAnswer:
    """A written answer as its reviewer reads it: the changes to the completion it began as, or the whole."""

    row: Completion
    html: str
    changes: str  # empty for a demonstration
    has_mask: bool  # it began as a completion with a masked phrase, and the mask is still there


def shown_answers(answers: Sequence[Completion]) -> list[ShownAnswer]:
    """Written answers with their HTML."""
    return [
        ShownAnswer(
            row=answer,
            html=safe_html(answer.text),
            changes=_changes(answer),
            has_mask=MASK in answer.text,
        )
        for answer in answers
    ]


def _changes(answer: Completion) -> str:
    if answer.edited_from is None:
        return ""
    return mark_hidden(changes_html(answer.edited_from.text, answer.text))


@dataclass(frozen=True)
class ShownReport:
    """A report with the completions in the order its annotator saw them."""

    row: Report
    completions: list[str]


def shown_reports(reports: Sequence[Report]) -> list[ShownReport]:
    """Reports with the texts they are about, in one query."""
    wanted = {pk for report in reports for pk in report.assignment.shown_order}
    texts = dict(Completion.objects.filter(pk__in=wanted).values_list("pk", "text"))
    return [
        ShownReport(row=report, completions=[texts[pk] for pk in report.assignment.shown_order])
        for report in reports
    ]
