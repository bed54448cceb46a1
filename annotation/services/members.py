"""Opening projects; who is in them and with which role; what a member does not want to see."""

from collections.abc import Iterable
from typing import Any

from django.db import transaction

from annotation.models import Assignment, Guideline, Membership, Project
from annotation.services.claims import release_comparison
from annotation.services.projects import lock_project
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused

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
    """Give a user a role in a project; a member's role changes to it.

    Raises Refused for an unknown role, and when the project would be left without an admin.
    """
    _check_role(role, user)
    lock_project(project)
    _keep_an_admin(project, user, role)
    membership, _ = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
    record("member added", actor=by, project=project.slug, subject=user.username, role=role)
    return membership


@transaction.atomic
def change_role(*, membership: Membership, role: str, by: User) -> Membership:
    """Give a member another role. Raises Refused for an unknown role and for the last admin, Conflict for one gone."""
    user, project = membership.user, membership.project
    _check_role(role, user)
    lock_project(project)
    before = _still_there(membership).role
    if before != role:
        _keep_an_admin(project, user, role)
        Membership.objects.filter(pk=membership.pk).update(role=role)
        record(
            "role changed", actor=by, project=project.slug, subject=user.username, before=before, role=role
        )
    membership.role = role
    return membership


@transaction.atomic
def remove_member(*, membership: Membership, by: User) -> None:
    """Take a member out: their judgments stay, and what they hold unfinished goes back to the others.

    Raises Refused for the last admin, Conflict for a member gone already.
    """
    user, project = membership.user, membership.project
    lock_project(project)
    role = _still_there(membership).role
    _keep_an_admin(project, user, None)
    Membership.objects.filter(pk=membership.pk).delete()
    _release_leases(project, user)
    record("member removed", actor=by, project=project.slug, subject=user.username, role=role)


@transaction.atomic
def set_opt_outs(*, project: Project, user: User, categories: Iterable[str]) -> Membership:
    """Which sensitive categories the member does not want to see; a comparison of one that they hold goes back.

    A category the project no longer lists may stay. Raises Refused for one that is neither listed nor kept from before.
    """
    lock_project(project)
    membership = Membership.objects.get(project=project, user=user)
    wanted = sorted(set(categories))
    known = categories_for(project, membership)
    unknown = [category for category in wanted if category not in known]
    if unknown:
        there = f"There are {', '.join(known)}." if known else "This project lists none."
        raise Refused(f"There is no category “{unknown[0]}” to opt out of. {there}")
    membership.opted_out = wanted
    membership.save(update_fields=["opted_out"])
    if wanted:
        _release_leases(project, user, comparison__prompt__tags__overlap=wanted)
    return membership


def categories_for(project: Project, membership: Membership) -> list[str]:
    """What a member can opt out of: the project's categories, and those kept from before the project dropped them."""
    return list(dict.fromkeys([*project.sensitive_categories, *membership.opted_out]))


def _check_role(role: str, user: User) -> None:
    if role not in Membership.Role.values:
        raise Refused(f"Unknown role {role!r}. Known are {', '.join(Membership.Role.values)}.")
    if user.is_simulated and role != Membership.Role.ANNOTATOR:
        raise Refused("A simulated annotator can only be an annotator.")


def _still_there(membership: Membership) -> Membership:
    row = Membership.objects.filter(pk=membership.pk).first()
    if row is None:
        raise Conflict(f"{membership.user} is no longer a member of this project.")
    return row


def _keep_an_admin(project: Project, user: User, role: str | None) -> None:
    """Refuse to leave the project without an admin who can sign in. The project is locked: two can't both go."""
    admins = Membership.objects.filter(
        project=project, role=Membership.Role.ADMIN, user__is_active=True
    ).values_list("user_id", flat=True)
    if role != Membership.Role.ADMIN and set(admins) == {user.pk}:
        raise Refused(f"{user} is the only admin of this project. Make somebody else an admin first.")


def _release_leases(project: Project, user: User, **narrowed: Any) -> None:
    leases = Assignment.objects.filter(
        annotator=user, state=Assignment.State.OPEN, comparison__round__project=project, **narrowed
    )
    for assignment in leases:
        release_comparison(assignment=assignment)
