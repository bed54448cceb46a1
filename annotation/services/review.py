"""Reviewing answers that people wrote, and resolving reports."""

from django.db import transaction
from django.utils import timezone

from annotation.models import Completion, Report
from annotation.selectors.review import has_other_reviewer
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused

Review = Completion.Review


def approve_answer(
    *, answer: Completion, reviewer: User, note: str = "", seen: str | None = None
) -> Completion:
    """Let datasets that are frozen from now on take the answer in. Repeatable, and may be changed to declined."""
    return _decide(answer, reviewer, Review.APPROVED, note, seen)


def decline_answer(*, answer: Completion, reviewer: User, note: str, seen: str | None = None) -> Completion:
    """Keep the answer out of datasets that are frozen from now on. Raises Refused without a note to its author."""
    if not note.strip():
        raise Refused("Say in a few words why you decline it: the author reads it.")
    return _decide(answer, reviewer, Review.DECLINED, note, seen)


@transaction.atomic
def _decide(answer: Completion, reviewer: User, verdict: str, note: str, seen: str | None) -> Completion:
    """Set the verdict where the answer still is as the reviewer has `seen` it, by default as it was fetched.

    Raises Refused for one's own answer, Conflict when somebody else was faster or the author took it back.
    """
    note = note.strip()
    if answer.judgment is None:
        raise Refused("This was not written by a person, so there is nothing to review.")
    if answer.judgment.annotator_id == reviewer.pk and has_other_reviewer(answer.prompt.project, reviewer):
        raise Refused("You wrote this answer yourself. Leave it to another reviewer.")
    if (answer.review, answer.review_note, answer.reviewed_by_id) == (verdict, note, reviewer.pk):
        return answer
    seen = answer.review if seen is None else seen
    unchanged = Completion.objects.filter(pk=answer.pk, review=seen, judgment__superseded_by=None)
    now = timezone.now()
    if unchanged.update(review=verdict, review_note=note, reviewed_by=reviewer, reviewed_at=now) != 1:
        raise Conflict(
            "Somebody else has reviewed this answer meanwhile, or its author has taken it back. Look at it again."
        )
    record(
        f"answer {verdict}",
        actor=reviewer,
        project=answer.prompt.project.slug,
        subject=f"completion {answer.pk}",
        before=seen,
        note=note,
    )
    answer.refresh_from_db()
    return answer


@transaction.atomic
def resolve_report(*, report: Report, user: User, note: str) -> Report:
    """Close a report, saying what was done. The same said again changes nothing.

    Raises Refused without a note, Conflict when somebody else has resolved it.
    """
    note = note.strip()
    if not note:
        raise Refused("Say in a few words what was done about it, or why nothing had to be.")
    is_open = Report.objects.filter(pk=report.pk, resolved_at=None)
    changed = is_open.update(resolved_at=timezone.now(), resolved_by=user, resolution=note)
    report.refresh_from_db()
    if changed == 1:
        project = report.assignment.comparison.round.project.slug
        record("report resolved", actor=user, project=project, subject=f"report {report.pk}", note=note)
    elif (report.resolved_by_id, report.resolution) != (user.pk, note):
        raise Conflict(f"{report.resolved_by} has resolved this report already: {report.resolution}")
    return report
