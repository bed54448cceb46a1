"""Opening projects and adding members."""

from django.db import transaction

from annotation.models import Guideline, Membership, Project
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Refused

FIRST_GUIDELINE = (
    "Put the completion you would rather be given first. Prefer one that answers what was asked, is right, says so "
    "briefly and ends properly. Rank equals alike.\n\n"
    'If none of them should ever be shown to anybody, choose "all bad".\n'
)


@transaction.atomic
def open_project(*, slug: str, name: str, user: User, description: str = "") -> Project:
    """Open a project whose first admin is `user`, with a first guideline. Raises Refused when the slug is taken."""
    project, created = Project.objects.get_or_create(
        slug=slug, defaults={"name": name, "description": description}
    )
    if not created:
        raise Refused(f"There is a project with the address {slug!r} already. Choose another.")
    Guideline.objects.create(project=project, version=1, text=FIRST_GUIDELINE)
    Membership.objects.create(project=project, user=user, role=Membership.Role.ADMIN)
    record("project opened", actor=user, project=slug)
    return project


@transaction.atomic
def add_member(*, project: Project, user: User, role: str, by: User | None = None) -> Membership:
    """Give a user a role in a project; a member's role changes to it. Raises Refused for an unknown role."""
    if role not in Membership.Role.values:
        raise Refused(f"Unknown role {role!r}. Known are {', '.join(Membership.Role.values)}.")
    if user.is_simulated and role != Membership.Role.ANNOTATOR:
        raise Refused("A simulated annotator can only be an annotator.")
    membership, _ = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
    record("member added", actor=by, project=project.slug, subject=user.username, role=role)
    return membership
