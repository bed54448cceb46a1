"""Members and their roles, and the invitations admins make."""

import hashlib
import json
import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Invitation, Judgment, Membership, Slot
from annotation.services.claims import claim_comparison
from annotation.services.invitations import (
    accept_invitation,
    open_invitation,
)
from annotation.services.judgments import Submission, submit_judgment
from annotation.services.members import add_member, change_role, open_project, remove_member
from rankloop.accounts.models import User
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.cast import Cast, add_simulated, assemble, open_ranking
from tests.pages import text_of
from tests.together import outcome_of, together

pytestmark = pytest.mark.django_db

PAGE, API = "/p/tea/people/", "/api/v1/projects/tea"


@pytest.fixture
def cast() -> Cast:
    return assemble()


@pytest.fixture
def admin(client: Client, cast: Cast) -> Client:
    client.force_login(cast.admin)
    return client


def member(cast: Cast, name: str) -> Membership:
    return Membership.objects.get(project=cast.project, user__username=name)


def invite(cast: Cast, role: str = "annotator", **options: Any) -> tuple[Invitation, str]:
    invitation, token = open_invitation(project=cast.project, user=cast.admin, role=role, **options)
    return invitation, f"/join/{token}/"


def expire(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def send(client: Client, method: str, address: str, body: Any = None) -> Any:
    return getattr(client, method)(address, json.dumps(body or {}), content_type="application/json")


# --- members ---


def test_an_admin_sees_members_and_changes_a_role(admin: Client, cast: Cast) -> None:
    page = text_of(admin.get(PAGE))
    assert all(name in page for name in ("admin", "researcher", "reviewer", "anna", "ben"))
    assert "stranger" not in page
    assert admin.post(f"{PAGE}{member(cast, 'anna').pk}/role/", {"role": "reviewer"}).url == PAGE
    assert member(cast, "anna").role == "reviewer"
    event = AuditEvent.objects.get(action="role changed")
    assert (event.actor, event.subject) == (cast.admin, "anna")
    assert event.details == {"before": "annotator", "role": "reviewer"}


def test_an_unknown_role_and_a_members_of_elsewhere_are_refused(admin: Client, cast: Cast) -> None:
    answer = admin.post(f"{PAGE}{member(cast, 'anna').pk}/role/", {"role": "owner"}, follow=True)
    assert "Choose one of the roles" in text_of(answer)
    open_project(slug="coffee", name="Coffee", user=cast.stranger)
    elsewhere = Membership.objects.get(project__slug="coffee")
    assert admin.post(f"{PAGE}{elsewhere.pk}/role/", {"role": "annotator"}).status_code == 404
    assert admin.post(f"{PAGE}{elsewhere.pk}/remove/").status_code == 404
    assert send(admin, "patch", f"{API}/members/{elsewhere.pk}", {"role": "annotator"}).status_code == 404
    assert send(admin, "delete", f"{API}/members/{elsewhere.pk}").status_code == 404
    elsewhere.refresh_from_db()
    assert elsewhere.role == "admin"


def test_a_simulated_annotator_gets_no_other_role(admin: Client, cast: Cast) -> None:
    [simulated] = add_simulated(cast, 1)
    row = member(cast, simulated.username)
    assert "can only be an annotator" in text_of(
        admin.post(f"{PAGE}{row.pk}/role/", {"role": "reviewer"}, follow=True)
    )
    invitation, _ = invite(cast, "reviewer")
    with pytest.raises(Refused, match="can only be an annotator"):
        accept_invitation(invitation=invitation, user=simulated)
    invitation.refresh_from_db()
    assert (member(cast, simulated.username).role, invitation.used) == ("annotator", 0)


def test_the_last_admin_neither_goes_nor_steps_down(admin: Client, cast: Cast) -> None:
    row = member(cast, "admin")
    for address, sent in (("role/", {"role": "researcher"}), ("remove/", {})):
        answer = admin.post(f"{PAGE}{row.pk}/{address}", sent, follow=True)
        assert "only admin of this project. Make somebody else an admin first." in text_of(answer)
    assert send(admin, "delete", f"{API}/members/{row.pk}").status_code == 400
    with pytest.raises(Refused):
        add_member(project=cast.project, user=cast.admin, role="annotator")
    assert member(cast, "admin").role == "admin"


def test_an_admin_who_cannot_sign_in_does_not_count_as_one(cast: Cast) -> None:
    add_member(project=cast.project, user=cast.ben, role="admin")
    User.objects.filter(pk=cast.ben.pk).update(is_active=False)
    with pytest.raises(Refused):
        remove_member(membership=member(cast, "admin"), by=cast.admin)
    remove_member(membership=member(cast, "ben"), by=cast.admin)


def test_an_admin_who_steps_down_beside_another_is_sent_where_they_may_be(admin: Client, cast: Cast) -> None:
    add_member(project=cast.project, user=cast.ben, role="admin")
    assert admin.post(f"{PAGE}{member(cast, 'admin').pk}/role/", {"role": "annotator"}).url == "/"
    assert admin.get(PAGE).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_two_admins_who_remove_each_other_at_once_leave_one() -> None:
    cast = assemble()
    add_member(project=cast.project, user=cast.ben, role="admin")
    rows = [(member(cast, "admin"), cast.ben), (member(cast, "ben"), cast.admin)]
    done = together(
        2,
        lambda number: outcome_of(
            lambda: remove_member(membership=rows[number][0], by=rows[number][1]), Refused
        ),
    )
    assert sorted(isinstance(outcome, Refused) for outcome in done) == [False, True]
    assert Membership.objects.filter(project=cast.project, role="admin").count() == 1


def test_who_is_removed_leaves_judgments_and_gives_back_what_they_hold(admin: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=2, overlap=1)
    judged = claim_comparison(project=cast.project, annotator=cast.anna)
    submit_judgment(assignment=judged, submission=Submission(submission_key=uuid.uuid4(), outcome="all_bad"))
    held = claim_comparison(project=cast.project, annotator=cast.anna)
    row = member(cast, "anna")
    assert admin.post(f"{PAGE}{row.pk}/remove/").url == PAGE
    assert not Membership.objects.filter(pk=row.pk).exists()
    assert Judgment.objects.filter(annotator=cast.anna).count() == 1
    held.refresh_from_db()
    assert held.state == Assignment.State.EXPIRED
    assert Slot.objects.get(comparison=held.comparison).state == Slot.State.OPEN
    assert admin.post(f"{PAGE}{row.pk}/remove/").status_code == 404
    with pytest.raises(Conflict, match="no longer a member"):
        change_role(membership=row, role="reviewer", by=cast.admin)
    admin.force_login(cast.anna)
    assert admin.get("/p/tea/").status_code == 404


@pytest.mark.parametrize("who", ["anna", "reviewer", "researcher", "stranger"])
def test_only_admins_reach_members_and_invitations(client: Client, cast: Cast, who: str) -> None:
    invitation, _ = invite(cast)
    row = member(cast, "ben")
    client.force_login(getattr(cast, who))
    asked = [
        client.get(PAGE),
        client.post(PAGE, {"role": "admin", "days": 7, "places": 1}),
        client.post(f"{PAGE}{row.pk}/role/", {"role": "admin"}),
        client.post(f"{PAGE}{row.pk}/remove/"),
        client.post(f"/p/tea/invitations/{invitation.pk}/revoke/"),
        client.get(f"{API}/members"),
        send(client, "patch", f"{API}/members/{row.pk}", {"role": "admin"}),
        send(client, "delete", f"{API}/members/{row.pk}"),
        client.get(f"{API}/invitations"),
        send(client, "post", f"{API}/invitations", {"role": "admin"}),
        send(client, "post", f"{API}/invitations/{invitation.pk}/revoke"),
    ]
    assert {answer.status_code for answer in asked} == {404}
    assert member(cast, "ben").role == "annotator"
    invitation.refresh_from_db()
    assert (Invitation.objects.count(), invitation.revoked_at) == (1, None)


# --- making invitations ---


def test_the_link_is_shown_once_and_only_its_digest_is_kept(admin: Client, cast: Cast) -> None:
    made = admin.post(PAGE, {"role": "reviewer", "days": 3, "places": 5})
    token = re.search(r"http://testserver/join/([\w-]{43})/", made.content.decode())[1]
    assert "no-store" in made.headers["Cache-Control"]
    again = admin.get(PAGE).content.decode()
    assert token not in again
    assert "0 of 5" in again
    kept = Invitation.objects.get()
    assert kept.digest == hashlib.sha256(token.encode()).hexdigest()
    assert (kept.role, kept.created_by) == ("reviewer", cast.admin)
    assert timedelta(days=2.9) < kept.expires_at - timezone.now() < timedelta(days=3.1)
    assert token not in str(list(AuditEvent.objects.values()))


@pytest.mark.parametrize(
    "wrong", [{"role": "owner"}, {"days": 2}, {"places": 0}, {"places": 501}, {"places": ""}]
)
def test_an_invitation_that_is_not_right_is_not_made(admin: Client, cast: Cast, wrong: dict) -> None:
    sent = {"role": "annotator", "days": 7, "places": 1} | wrong
    answer = admin.post(PAGE, sent)
    assert answer.status_code == 400
    assert f'id="id_{next(iter(wrong))}_error"' in answer.content.decode()
    assert send(admin, "post", f"{API}/invitations", sent).status_code == 400
    if wrong != {"places": ""}:
        with pytest.raises(Refused):
            open_invitation(project=cast.project, user=cast.admin, **sent)
    assert not Invitation.objects.exists()


def test_open_invitations_come_before_closed_ones_each_with_its_state(admin: Client, cast: Cast) -> None:
    gone, full, taken_back, _ = (invite(cast, role)[0] for role in Membership.Role.values)
    expire(gone)
    accept_invitation(invitation=full, user=cast.stranger)
    assert admin.post(f"/p/tea/invitations/{taken_back.pk}/revoke/").url == PAGE
    admin.post(f"/p/tea/invitations/{taken_back.pk}/revoke/")
    page = admin.get(PAGE)
    states = re.findall(r'data-label="State"><span[^>]*>([^<]+)<', page.content.decode())
    assert states == ["open", "revoked", "used up", "expired"]
    assert AuditEvent.objects.filter(action="invitation revoked").count() == 1


# --- API ---


def test_the_api_lists_and_changes_members(admin: Client, cast: Cast) -> None:
    listed = {row["username"]: row for row in admin.get(f"{API}/members").json()["results"]}
    assert set(listed) == {"admin", "researcher", "reviewer", "anna", "ben"}
    address = f"{API}/members/{listed['anna']['id']}"
    assert send(admin, "patch", address, {"role": "reviewer"}).json()["role"] == "reviewer"
    assert send(admin, "patch", address, {"role": "owner"}).status_code == 400
    assert send(admin, "delete", address).status_code == 204
    assert send(admin, "delete", address).status_code == 404
    assert not Membership.objects.filter(user=cast.anna).exists()


def test_the_api_makes_lists_and_revokes_invitations(admin: Client, cast: Cast) -> None:
    made = send(admin, "post", f"{API}/invitations", {"role": "annotator", "places": 3}).json()
    assert Invitation.objects.get().digest == hashlib.sha256(made["token"].encode()).hexdigest()
    listed = admin.get(f"{API}/invitations").json()["results"]
    assert [(row["id"], row["state"], row["places"]) for row in listed] == [(made["id"], "open", 3)]
    assert "token" not in listed[0]
    assert "digest" not in listed[0]
    for _ in range(2):
        answer = send(admin, "post", f"{API}/invitations/{made['id']}/revoke")
        assert answer.json()["state"] == "revoked"
    assert send(admin, "post", f"{API}/invitations/999/revoke").status_code == 404
