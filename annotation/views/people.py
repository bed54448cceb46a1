"""The admins' page of members and invitations, and what each member prefers."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.forms.people import ROLE_HELP, InvitationForm, OptOutForm, RoleForm
from annotation.models import Membership
from annotation.selectors.members import get_invitation, get_member, invitations_of, members_of
from annotation.services.invitations import open_invitation, revoke_invitation
from annotation.services.members import categories_for, change_role, remove_member, set_opt_outs
from rankloop.errors import Refused

MEMBERS_PER_PAGE = 50
MOST_CLOSED = 20  # closed invitations shown; the API lists all


@login_required
@never_cache
def people(request: HttpRequest, slug: str) -> HttpResponse:
    """Members and invitations; POST makes an invitation, whose link this page alone shows, once."""
    project = get_project(request.user, slug, at_least=Role.ADMIN)
    form = InvitationForm(request.POST or None)
    made = None
    if request.method == "POST" and form.is_valid():
        invitation, token = open_invitation(project=project, user=request.user, **form.cleaned_data)
        made = {"link": request.build_absolute_uri(reverse("join", args=[token])), "invitation": invitation}
        form = InvitationForm()
    invitations = list(invitations_of(project))
    closed = [invitation for invitation in invitations if invitation.is_closed]
    context = {
        "project": project,
        "form": form,
        "made": made,
        "page": Paginator(members_of(project), MEMBERS_PER_PAGE).get_page(request.GET.get("page")),
        "roles": ROLE_HELP,
        "invitations": [row for row in invitations if not row.is_closed] + closed[:MOST_CLOSED],
        "closed_hidden": len(closed[MOST_CLOSED:]),
    }
    return render(request, "annotation/people.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def role(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """Give a member another role."""
    project = get_project(request.user, slug, at_least=Role.ADMIN)
    membership = get_member(project, member)
    form = RoleForm(request.POST)
    try:
        if not form.is_valid():
            raise Refused("Choose one of the roles.")
        change_role(membership=membership, role=form.cleaned_data["role"], by=request.user)
        messages.success(request, f"{membership.user} is now {membership.role}.")
    except Refused as error:
        messages.error(request, str(error))
    return _back(request, membership)


@login_required
@require_POST
def remove(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """Take a member out of the project."""
    project = get_project(request.user, slug, at_least=Role.ADMIN)
    membership = get_member(project, member)
    try:
        remove_member(membership=membership, by=request.user)
        messages.success(request, f"{membership.user} is no longer a member. Their judgments are kept.")
    except Refused as error:
        messages.error(request, str(error))
    return _back(request, membership)


def _back(request: HttpRequest, membership: Membership) -> HttpResponse:
    """To the page of members, or home for an admin who has just closed it to themselves."""
    still_admin = Membership.objects.filter(
        project=membership.project_id, user=request.user, role=Role.ADMIN
    ).exists()
    return redirect("people", membership.project.slug) if still_admin else redirect("home")


@login_required
@require_POST
def revoke(request: HttpRequest, slug: str, invitation: int) -> HttpResponse:
    """Close an invitation before its time."""
    project = get_project(request.user, slug, at_least=Role.ADMIN)
    revoke_invitation(invitation=get_invitation(project, invitation), user=request.user)
    messages.success(request, "The invitation is revoked. Who has joined by it stays.")
    return redirect("people", slug)


@login_required
def preferences(request: HttpRequest, slug: str) -> HttpResponse:
    """What I don't want to see in this project."""
    project = get_project(request.user, slug)
    membership = project.memberships.get(user=request.user)
    categories = categories_for(project, membership)
    form = OptOutForm(
        request.POST if request.method == "POST" else None,
        initial={"categories": membership.opted_out},
        categories=categories,
    )
    if request.method == "POST" and form.is_valid():
        set_opt_outs(project=project, user=request.user, categories=form.cleaned_data["categories"])
        messages.success(request, "Your preferences are saved. They hold from the next comparison on.")
        return redirect("preferences", slug)
    context = {"project": project, "form": form, "categories": categories}
    return render(request, "annotation/preferences.html", context, status=400 if form.errors else 200)
