"""Inviting people by a link that expires, and joining by one."""

import secrets
from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from annotation.access import includes
from annotation.models import Invitation, Membership, Project
from annotation.selectors.members import is_open
from annotation.services.members import add_member
from annotation.services.projects import lock_project
from rankloop.accounts.models import User
from rankloop.accounts.services import open_account, token_digest
from rankloop.audit.services import record
from rankloop.errors import Refused

LIFETIMES = (1, 3, 7, 30)  # days


class InvitationClosed(Refused):
    """The invitation has expired, is used up or was revoked."""

    def __init__(self) -> None:
        super().__init__("This invitation is closed. Ask whoever sent it for a new one.")


@transaction.atomic
def open_invitation(
    *, project: Project, user: User, role: str, days: int = 7, places: int = 1
) -> tuple[Invitation, str]:
    """Make an invitation and return it with its token, which can't be shown again.

    Raises Refused for an unknown role, a lifetime not offered, or too few or too many places.
    """
    if days not in LIFETIMES:
        raise Refused(f"An invitation lasts {', '.join(map(str, LIFETIMES))} days. Choose one of these.")
    token = secrets.token_urlsafe(32)
    invitation = Invitation(
        project=project,
        role=role,
        digest=token_digest(token),
        places=places,
        expires_at=timezone.now() + timedelta(days=days),
        created_by=user,
    )
    try:
        invitation.clean_fields(exclude={"revoked_at"})
    except ValidationError as error:
        raise Refused(
            " ".join(f"{name}: {' '.join(told)}" for name, told in error.message_dict.items())
        ) from None
    invitation.save()
    record(
        "invitation opened",
        actor=user,
        project=project.slug,
        subject=str(invitation.pk),
        role=role,
        places=places,
    )
    return invitation, token


@transaction.atomic
def revoke_invitation(*, invitation: Invitation, user: User) -> None:
    """Let nobody else join by the link. Repeatable; who has joined stays."""
    if Invitation.objects.filter(pk=invitation.pk, revoked_at=None).update(revoked_at=timezone.now()):
        record("invitation revoked", actor=user, project=invitation.project.slug, subject=str(invitation.pk))


@transaction.atomic
def accept_invitation(*, invitation: Invitation, user: User) -> tuple[Membership, bool]:
    """Join by an invitation; false when the user's role included its role already: then nothing changes.

    One person takes one place, however often they come. Raises InvitationClosed when there is no place to be had.
    """
    project = lock_project(invitation.project)
    mine = Membership.objects.filter(project=project, user=user).first()
    if mine is not None and includes(mine.role, invitation.role):
        return mine, False
    takes_place = Invitation.objects.filter(
        pk=invitation.pk, revoked_at=None, expires_at__gt=timezone.now(), used__lt=F("places")
    ).update(used=F("used") + 1)
    if not takes_place:
        raise InvitationClosed
    record("invitation accepted", actor=user, project=project.slug, subject=str(invitation.pk))
    return add_member(project=project, user=user, role=invitation.role, by=invitation.created_by), True


@transaction.atomic
def join_with_new_account(*, invitation: Invitation, username: str, password: str) -> User:
    """Make an account and join with it: both or neither. Raises as accept_invitation and open_account do."""
    if not is_open(invitation):
        raise InvitationClosed
    user = open_account(username=username, password=password)
    accept_invitation(invitation=invitation, user=user)
    return user
