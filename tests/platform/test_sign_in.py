"""Signing in and out, guessing passwords, and one's own tokens."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from rankloop.accounts.models import ApiToken, User
from rankloop.accounts.throttle import MOST_FAILURES
from rankloop.audit.models import AuditEvent

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", password=PASSWORD)


def attempt(client: Client, password: str, username: str = "anna", **extra: str):
    return client.post(
        "/sign-in/", {"username": username, "password": password, "next": "/account/"}, **extra
    )


def test_the_right_password_leads_to_the_page_that_was_wanted(client: Client, anna: User) -> None:
    wanted = client.get("/account/")
    assert wanted.url == "/sign-in/?next=/account/"
    assert attempt(client, PASSWORD).url == "/account/"
    assert client.get("/account/").status_code == 200


def test_a_next_address_of_another_site_is_not_followed(client: Client, anna: User) -> None:
    answer = client.post(
        "/sign-in/", {"username": "anna", "password": PASSWORD, "next": "https://elsewhere.example/"}
    )
    assert answer.url == "/"


def test_a_wrong_password_is_told_kindly_and_kept_without_what_was_typed(client: Client, anna: User) -> None:
    answer = attempt(client, "wrong")
    assert "The username or the password is not right" in answer.content.decode()
    event = AuditEvent.objects.get(action="sign-in failed")
    assert "anna" not in f"{event.subject} {event.details}"


def test_ten_failures_from_one_address_close_the_account_there_for_a_while(
    client: Client, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MOST_FAILURES):
        assert attempt(client, "wrong").status_code == 200
    refused = attempt(client, PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert "_auth_user_id" not in client.session
    assert (
        attempt(client, "wrong", username="ANNA ").status_code == 429
    )  # spelled otherwise, the same account
    assert AuditEvent.objects.filter(action="sign-in failed").count() == MOST_FAILURES

    assert attempt(Client(), PASSWORD, REMOTE_ADDR="10.1.2.3").status_code == 302
    later = timezone.now() + timedelta(minutes=16)
    monkeypatch.setattr("rankloop.accounts.throttle.timezone.now", lambda: later)
    assert attempt(client, PASSWORD).status_code == 302


def test_signing_out_takes_a_post(client: Client, anna: User) -> None:
    client.force_login(anna)
    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/").url == "/sign-in/"
    assert client.get("/account/").status_code == 302


def test_a_token_is_shown_once_works_and_can_be_revoked(client: Client, anna: User) -> None:
    client.force_login(anna)
    page = client.post("/account/", {"name": "import script"}).content.decode()
    token = re.search(r'id="new-token">(rl_[\w-]+)<', page)[1]
    assert token not in client.get("/account/").content.decode()
    kept = ApiToken.objects.get()
    assert token not in (kept.digest, kept.name)

    program, header = Client(), {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    address = "/api/v1/projects/nowhere/claim"
    assert program.post(address, "{}", content_type="application/json", **header).status_code == 404
    client.post(f"/account/tokens/{kept.pk}/revoke/")
    assert program.post(address, "{}", content_type="application/json", **header).status_code in (401, 403)


def test_nobody_revokes_the_token_of_another(client: Client, anna: User) -> None:
    token = ApiToken.objects.create(user=anna, name="mine", digest="0" * 64)
    client.force_login(User.objects.create_user("ben"))
    assert client.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None


def test_a_missing_page_is_told_in_style_and_under_the_content_security_policy(client: Client) -> None:
    answer = client.get("/nowhere/")
    assert answer.status_code == 404
    assert "There is no such page" in answer.content.decode()
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
