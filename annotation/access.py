"""The one getter that authorises. A foreign project and a missing one give the same 404."""

from django.http import Http404

from annotation.models import Completion, Membership, Project, Report
from rankloop.accounts.models import User

Role = Membership.Role
_RANK = {Role.ANNOTATOR: 0, Role.REVIEWER: 1, Role.RESEARCHER: 2, Role.ADMIN: 3}
# Who may review what others wrote.
REVIEWERS = [role for role in Role if _RANK[role] >= _RANK[Role.REVIEWER]]


def includes(role: str, at_least: str) -> bool:
    """Whether `role` may do what `at_least` may do."""
    return _RANK[Role(role)] >= _RANK[Role(at_least)]


def get_project(user: User, slug: str, *, at_least: str = Role.ANNOTATOR) -> Project:
    """The project, when the user is a member of it with at least that role.

    `project.my_role` tells which, `project.my_membership` the rest of the row.
    Raises Http404 alike for a project that is missing, foreign, or not open to the user's role.
    """
    membership = (
        Membership.objects.select_related("project").filter(user_id=user.pk, project__slug=slug).first()
        if user.is_authenticated
        else None
    )
    if membership is None or not includes(membership.role, at_least):
        raise Http404("There is no such project, or it is not open to you.")
    project = membership.project
    project.my_role = membership.role  # type: ignore[attr-defined]
    project.my_membership = membership  # type: ignore[attr-defined]
    return project


def get_answer(user: User, slug: str, answer: int) -> Completion:
    """An answer that a person wrote in a project whose reviewer the user is; Http404 alike for all others."""
    project = get_project(user, slug, at_least=Role.REVIEWER)
    found = (
        Completion.objects.filter(pk=answer, prompt__project=project, judgment__isnull=False)
        .select_related("prompt__project", "judgment")
        .first()
    )
    if found is None:
        raise Http404("There is no such answer.")
    return found


def get_report(user: User, slug: str, report: int) -> Report:
    """A report in a project whose reviewer the user is; Http404 alike for all others."""
    project = get_project(user, slug, at_least=Role.REVIEWER)
    found = (
        Report.objects.filter(pk=report, assignment__comparison__round__project=project)
        .select_related("assignment__comparison__round__project")
        .first()
    )
    if found is None:
        raise Http404("There is no such report.")
    return found
