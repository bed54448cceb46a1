"""Who is in a project, and who has been invited."""

from django.db.models import Case, F, IntegerField, Q, QuerySet, Value, When
from django.db.models.functions import Now
from django.http import Http404
from django.utils import timezone

from annotation.models import Invitation, Membership, Project
from rankloop.accounts.services import token_digest

_OPEN = Q(revoked_at=None, expires_at__gt=Now(), used__lt=F("places"))


def members_of(project: Project) -> QuerySet[Membership]:
    """Members by username."""
    return project.memberships.select_related("user").order_by("user__username")


def invitations_of(project: Project) -> QuerySet[Invitation]:
    """Invitations by which one can still join before the others, the newest first."""
    closed = Case(When(_OPEN, then=Value(0)), default=Value(1), output_field=IntegerField())
    return (
        project.invitations.select_related("created_by")
        .annotate(is_closed=closed)
        .order_by("is_closed", "-pk")
    )


def invitation_by(token: str) -> Invitation | None:
    """The invitation of a token, open or not."""
    rows = Invitation.objects.select_related("project", "created_by")
    return rows.filter(digest=token_digest(token)).first()


def state_of(invitation: Invitation) -> str:
    """open, revoked, used up or expired."""
    if invitation.revoked_at is not None:
        return "revoked"
    if invitation.used >= invitation.places:
        return "used up"
    return "open" if invitation.expires_at > timezone.now() else "expired"


def is_open(invitation: Invitation) -> bool:
    """Whether one can join by it now."""
    return state_of(invitation) == "open"


def get_member(project: Project, member: int) -> Membership:
    """A membership of a project the caller may administer. Raises Http404."""
    found = project.memberships.select_related("user", "project").filter(pk=member).first()
    if found is None:
        raise Http404("There is no such member of this project.")
    return found


def get_invitation(project: Project, invitation: int) -> Invitation:
    """An invitation of a project the caller may administer. Raises Http404."""
    found = project.invitations.select_related("project").filter(pk=invitation).first()
    if found is None:
        raise Http404("There is no such invitation of this project.")
    return found
