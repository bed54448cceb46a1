"""Joining a project by an invitation: with the account one has, or with a new one."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotation.models import Invitation, Membership, Project
from annotation.services.invitations import (
    InvitationClosed,
    accept_invitation,
    open_invitation,
    revoke_invitation,
)
from rankloop.accounts.models import User
from rankloop.accounts.throttle import MOST_FAILURES
from rankloop.audit.models import AuditEvent
from tests.cast import PASSWORD, Cast, assemble
from tests.pages import text_of
from tests.together import outcome_of, together

pytestmark = pytest.mark.django_db

NEW = {"username": "carla", "password1": "four quiet green pots", "password2": "four quiet green pots"}


@pytest.fixture
def cast() -> Cast:
    return assemble()


def member(cast: Cast, name: str) -> Membership:
    return Membership.objects.get(project=cast.project, user__username=name)


def invite(cast: Cast, role: str = "annotator", **options: Any) -> tuple[Invitation, str]:
    invitation, token = open_invitation(project=cast.project, user=cast.admin, role=role, **options)
    return invitation, f"/join/{token}/"


def expire(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def send(client: Client, method: str, address: str, body: Any = None) -> Any:
    return getattr(client, method)(address, json.dumps(body or {}), content_type="application/json")


def test_a_visitor_makes_an_account_joins_and_is_signed_in(client: Client, cast: Cast) -> None:
    invitation, link = invite(cast)
    page = client.get(link)
    assert "Tea questions" in text_of(page)
    assert "annotator" in text_of(page)
    assert f"/sign-in/?next={link}" in page.content.decode()
    assert "no-store" in page.headers["Cache-Control"]
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert client.post(link, NEW).url == "/p/tea/"
    assert client.get("/p/tea/").status_code == 200
    assert member(cast, "carla").role == "annotator"
    assert User.objects.get(username="carla").check_password(NEW["password1"])
    invitation.refresh_from_db()
    assert invitation.used == 1
    assert Client().login(username="carla", password=NEW["password1"])


def test_signing_in_leads_back_to_the_invitation(client: Client, cast: Cast) -> None:
    _, link = invite(cast)
    answer = client.post("/sign-in/", {"username": "stranger", "password": PASSWORD, "next": link})
    assert answer.url == link
    page = client.get(link)
    assert "Join as stranger" in text_of(page)
    assert not Membership.objects.filter(user=cast.stranger).exists()  # opening the page is not joining
    assert client.post(link).url == "/p/tea/"
    assert member(cast, "stranger").role == "annotator"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "ANNA"}, "username"),
        ({"password2": "another one of them"}, "password2"),
        ({"password1": "short", "password2": "short"}, "password2"),
        ({"password1": "password123", "password2": "password123"}, "password2"),
    ],
)
def test_a_name_or_password_that_is_not_right_takes_no_place(
    client: Client, cast: Cast, wrong: dict, field: str
) -> None:
    invitation, link = invite(cast)
    people = User.objects.count()
    answer = client.post(link, NEW | wrong)
    assert answer.status_code == 400
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert NEW["password1"] not in answer.content.decode()
    invitation.refresh_from_db()
    assert (invitation.used, User.objects.count()) == (0, people)


def test_joining_twice_takes_one_place(client: Client, cast: Cast) -> None:
    invitation, link = invite(cast, places=2)
    client.force_login(cast.stranger)
    client.post(link)
    assert "in this project already" in text_of(client.get(link))
    assert client.post(link).url == "/p/tea/"
    invitation.refresh_from_db()
    assert invitation.used == 1


def test_a_role_is_raised_and_never_lowered(client: Client, cast: Cast) -> None:
    lower, link = invite(cast, "annotator")
    client.force_login(cast.researcher)
    page = text_of(client.get(link))
    assert "already, as researcher" in page
    assert "You are researcher here already; nothing was changed." in text_of(client.post(link, follow=True))
    lower.refresh_from_db()
    assert (member(cast, "researcher").role, lower.used) == ("researcher", 0)

    higher, link = invite(cast, "reviewer")
    client.force_login(cast.anna)
    assert "joining makes you reviewer" in text_of(client.get(link))
    client.post(link)
    higher.refresh_from_db()
    assert (member(cast, "anna").role, higher.used) == ("reviewer", 1)


@pytest.mark.parametrize("reason", ["expired", "used up", "revoked"])
@pytest.mark.parametrize("signed_in", [False, True])
def test_a_closed_invitation_says_whom_to_ask(
    client: Client, cast: Cast, reason: str, signed_in: bool
) -> None:
    invitation, link = invite(cast)
    if reason == "expired":
        expire(invitation)
    elif reason == "revoked":
        revoke_invitation(invitation=invitation, user=cast.admin)
    else:
        accept_invitation(invitation=invitation, user=cast.stranger)
    outsider = User.objects.create_user("outsider")
    if signed_in:
        client.force_login(outsider)
    people = User.objects.count()
    for answer in (client.get(link), client.post(link, NEW)):
        assert answer.status_code == 410
        assert "Ask whoever sent it for a new one" in text_of(answer)
        assert "Tea questions" not in text_of(answer)
    assert not Membership.objects.filter(user=outsider).exists()
    assert User.objects.count() == people


def test_an_invitation_that_closes_while_the_page_is_open_makes_no_account(
    client: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation, link = invite(cast)
    expire(invitation)
    # The page and the service look before they act; the place itself is taken by one UPDATE that looks again.
    monkeypatch.setattr("annotation.views.joining.is_open", lambda invitation: True)
    monkeypatch.setattr("annotation.services.invitations.is_open", lambda invitation: True)
    assert client.post(link, NEW).status_code == 410
    assert not User.objects.filter(username="carla").exists()


def test_an_unknown_link_is_told_and_trying_many_is_slowed_down(client: Client, cast: Cast) -> None:
    _, link = invite(cast)
    for number in range(MOST_FAILURES):
        answer = client.get(f"/join/{number}/")
        assert answer.status_code == 404
        assert "ask whoever sent it for a new one" in text_of(answer)
    slowed = client.get("/join/one-more/")
    assert slowed.status_code == 429
    assert int(slowed.headers["Retry-After"]) > 0
    assert AuditEvent.objects.filter(action="invitation not found").count() == MOST_FAILURES
    assert client.get(link).status_code == 200  # the right link works from the same address


def test_trying_out_usernames_is_slowed_down(client: Client, cast: Cast) -> None:
    _, link = invite(cast)
    for _ in range(MOST_FAILURES):
        assert client.post(link, NEW | {"username": "anna"}).status_code == 400
    assert client.post(link, NEW).status_code == 429
    assert not User.objects.filter(username="carla").exists()
    assert client.post(link, NEW, REMOTE_ADDR="10.1.2.3").status_code == 302


def test_a_projects_name_is_shown_as_text(client: Client, cast: Cast) -> None:
    Project.objects.update(name="<script>alert(1)</script>")
    _, link = invite(cast)
    assert "<script>alert" not in client.get(link).content.decode()


# --- at once ---


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_no_more_join_than_there_are_places() -> None:
    cast = assemble()
    invitation, _ = invite(cast, places=2)
    crowd = [User.objects.create_user(f"guest-{number}") for number in range(6)]
    done = together(
        6,
        lambda number: outcome_of(
            lambda: accept_invitation(invitation=invitation, user=crowd[number]), InvitationClosed
        ),
    )
    assert sum(isinstance(outcome, InvitationClosed) for outcome in done) == 4
    assert Membership.objects.filter(user__in=crowd).count() == 2
    invitation.refresh_from_db()
    assert invitation.used == 2


@pytest.mark.django_db(transaction=True)
def test_one_person_at_once_in_several_tabs_takes_one_place() -> None:
    cast = assemble()
    invitation, _ = invite(cast, places=4)
    done = together(4, lambda number: accept_invitation(invitation=invitation, user=cast.stranger))
    assert sorted(changed for _, changed in done) == [False, False, False, True]
    invitation.refresh_from_db()
    assert invitation.used == 1


@pytest.mark.django_db(transaction=True)
def test_two_invitations_taken_at_once_leave_the_higher_role() -> None:
    cast = assemble()
    invitations = [invite(cast, role)[0] for role in ("annotator", "reviewer", "annotator", "researcher")]
    together(4, lambda number: accept_invitation(invitation=invitations[number], user=cast.stranger))
    assert member(cast, "stranger").role == "researcher"


def test_the_api_joins_by_a_token(client: Client, cast: Cast) -> None:
    invitation, link = invite(cast, "reviewer")
    token = link.split("/")[2]
    assert send(client, "post", "/api/v1/join", {"token": token}).status_code in (401, 403)
    client.force_login(cast.stranger)
    answers = [send(client, "post", "/api/v1/join", {"token": token}).json() for _ in range(2)]
    assert answers == [
        {"project": "tea", "role": "reviewer", "changed": True},
        {"project": "tea", "role": "reviewer", "changed": False},
    ]
    assert send(client, "post", "/api/v1/join", {"token": "x"}).status_code == 404
    client.force_login(User.objects.create_user("outsider"))
    closed = send(client, "post", "/api/v1/join", {"token": token})
    assert closed.status_code == 400
    assert "Ask whoever sent it" in closed.json()["detail"]
    invitation.refresh_from_db()
    assert invitation.used == 1
