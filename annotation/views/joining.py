"""The public page of an invitation: join with the account one has, or with a new one made here."""

from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from annotation.access import includes
from annotation.forms.people import ROLE_HELP
from annotation.models import Invitation, Membership
from annotation.selectors.members import invitation_by, is_open
from annotation.services.invitations import InvitationClosed, accept_invitation, join_with_new_account
from rankloop.accounts.forms import NewAccountForm
from rankloop.accounts.throttle import client_address, is_throttled, note_failure
from rankloop.errors import Refused

WRONG_LINK = "invitation not found"
NAME_TAKEN = "new account: name taken"


@never_cache
@sensitive_post_parameters()
def join(request: HttpRequest, token: str) -> HttpResponse:
    """What the link leads to. Who has it may see the project's name and the role, and nothing else."""
    invitation = invitation_by(token)
    if invitation is None:
        return _no_such_link(request)
    mine = _my_membership(request, invitation)
    if mine is not None and includes(mine.role, invitation.role):
        if request.method == "POST":
            messages.info(request, f"You are {mine.role} here already; nothing was changed.")
            return redirect("project", invitation.project.slug)
        return _page(request, invitation, mine=mine, is_enough=True)
    if not is_open(invitation):
        return _closed(request, status=410)
    if request.user.is_authenticated:
        return _join(request, invitation, mine)
    return _join_as_new(request, invitation)


def _my_membership(request: HttpRequest, invitation: Invitation) -> Membership | None:
    if not request.user.is_authenticated:
        return None
    return invitation.project.memberships.filter(user=request.user).first()


def _page(
    request: HttpRequest, invitation: Invitation, *, status: int = 200, **context: object
) -> HttpResponse:
    context |= {"invitation": invitation, "role_help": ROLE_HELP[invitation.role]}
    return render(request, "annotation/join.html", context, status=status)


def _closed(request: HttpRequest, *, status: int, wait: bool = False) -> HttpResponse:
    return render(request, "annotation/invitation_closed.html", {"wait": wait, "code": status}, status=status)


def _no_such_link(request: HttpRequest) -> HttpResponse:
    """404, slowed down for an address that tries many. Links that exist work from there all the same."""
    guess = {"username": "", "address": client_address(request), "action": WRONG_LINK}
    if is_throttled(**guess):
        response = _closed(request, status=429, wait=True)
        response.headers["Retry-After"] = "60"
        return response
    note_failure(**guess)
    return _closed(request, status=404)


def _join(request: HttpRequest, invitation: Invitation, mine: Membership | None) -> HttpResponse:
    """One button for somebody who is signed in."""
    if request.method != "POST":
        return _page(request, invitation, mine=mine)
    try:
        membership, _ = accept_invitation(invitation=invitation, user=request.user)
    except InvitationClosed:
        return _closed(request, status=410)
    except Refused as error:
        return _page(request, invitation, mine=mine, refused=str(error), status=400)
    messages.success(request, f"Welcome. You are {membership.role} in this project.")
    return redirect("project", invitation.project.slug)


def _join_as_new(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    """Sign in and come back, or make an account, which signs in and joins."""
    if request.method != "POST":
        return _page(request, invitation, form=NewAccountForm())
    guess = {"username": invitation.digest, "address": client_address(request), "action": NAME_TAKEN}
    if is_throttled(**guess):
        refused = (
            "Too many usernames that are taken were tried from where you are. Wait a quarter of an hour."
        )
        response = _page(request, invitation, form=NewAccountForm(), refused=refused, status=429)
        response.headers["Retry-After"] = "60"
        return response
    form = NewAccountForm(request.POST)
    if form.is_valid():
        username, password = form.cleaned_data["username"], form.cleaned_data["password1"]
        try:
            user = join_with_new_account(invitation=invitation, username=username, password=password)
        except InvitationClosed:
            return _closed(request, status=410)
        except Refused as error:
            form.add_error("username", str(error))
        else:
            login(request, user)
            messages.success(request, f"Welcome, {user}. You are {invitation.role} in this project.")
            return redirect("project", invitation.project.slug)
    if form.is_name_taken:
        note_failure(**guess)
    return _page(request, invitation, form=form, status=400)
