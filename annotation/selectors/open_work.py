"""How much there is left to rank for one user."""

from collections.abc import Sequence
from typing import Any

from django.db import connection

from annotation.models import Assignment, Membership, Project, Round
from annotation.selectors.board import progress_of
from rankloop.accounts.models import User

# Comparisons with a free slot that the user has neither judged nor skipped nor open now, and did not opt out of.
_FREE = """
SELECT round.project_id, count(DISTINCT slot.comparison_id)
FROM annotation_round round
JOIN annotation_slot slot ON slot.round_id = round.id AND slot.state = 'open'
WHERE round.project_id = ANY(%(projects)s) AND round.status = 'ranking' AND round.audience = %(audience)s
  AND (slot.reserved_for_id IS NULL OR slot.reserved_for_id = %(user)s)
  AND NOT EXISTS (
      SELECT FROM annotation_assignment mine
      WHERE mine.comparison_id = slot.comparison_id AND mine.annotator_id = %(user)s AND mine.state <> 'expired')
  AND NOT EXISTS (
      SELECT FROM annotation_membership member
      JOIN annotation_comparison comparison ON comparison.id = slot.comparison_id
      JOIN annotation_prompt prompt ON prompt.id = comparison.prompt_id
      WHERE member.project_id = round.project_id AND member.user_id = %(user)s AND member.opted_out <> '{}'
        AND prompt.tags && member.opted_out)
GROUP BY round.project_id
"""


def open_work(*, user: User, projects: Sequence[Project]) -> dict[int, int]:
    """Comparisons each project (by id) still has for this user, those they hold now included."""
    audience = Round.Audience.REHEARSAL if user.is_simulated else Round.Audience.PEOPLE
    ids = [project.pk for project in projects]
    with connection.cursor() as cursor:
        cursor.execute(_FREE, {"projects": ids, "audience": audience, "user": user.pk})
        left = dict.fromkeys(ids, 0) | dict(cursor.fetchall())
    mine = Assignment.objects.filter(
        annotator=user,
        state=Assignment.State.OPEN,
        comparison__round__project__in=ids,
        comparison__round__status=Round.Status.RANKING,
    )
    for project_id in mine.values_list("comparison__round__project_id", flat=True):
        left[project_id] += 1
    return left


def my_projects(user: User) -> list[Membership]:
    """The user's memberships by project name, each with `open_work`."""
    memberships = list(user.memberships.select_related("project").order_by("project__name"))
    left = open_work(user=user, projects=[membership.project for membership in memberships])
    for membership in memberships:
        membership.open_work = left[membership.project_id]  # type: ignore[attr-defined]
    return memberships


def for_annotators(*, user: User, project: Project) -> dict[str, Any]:
    """What an annotator's pages show of a project: the work left, one's own progress, the guideline."""
    return {
        "project": project,
        "left": open_work(user=user, projects=[project])[project.pk],
        "progress": progress_of(project=project, annotator=user),
        "guideline": project.guidelines.order_by("-version").first(),
    }
