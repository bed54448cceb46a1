"""Bearer tokens and simulated accounts: what is kept, who is let in, and who is not."""

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from rankloop.accounts.models import ApiToken, User
from rankloop.accounts.services import open_simulated_user, open_token, revoke_token, token_digest
from rankloop.errors import Refused
from tests.cast import Cast, assemble

pytestmark = pytest.mark.django_db

PROGRESS = "/api/v1/projects/tea/progress"


@pytest.fixture
def cast() -> Cast:
    return assemble()


def ask(authorization: str | None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    return Client().get(PROGRESS, headers=headers).status_code


def test_a_token_is_shown_once_and_only_its_digest_kept(cast):
    token = open_token(user=cast.anna, name="script")
    row = ApiToken.objects.get()
    assert (row.user, row.name, row.digest) == (cast.anna, "script", token_digest(token))
    assert token.startswith("rl_")
    kept = json.dumps(list(ApiToken.objects.values()), default=str)
    assert token not in kept
    assert token[3:] not in kept
    assert open_token(user=cast.anna, name="script") != token


def test_a_token_lets_its_user_in_and_remembers_when(cast):
    token = open_token(user=cast.anna, name="script")
    assert ask(f"Bearer {token}") == 200
    assert ask(f"bearer {token}") == 200
    used = ApiToken.objects.get().last_used_at
    assert used > timezone.now() - timedelta(minutes=1)
    assert ask(f"Bearer {token}") == 200
    # Not written at every request.
    assert ApiToken.objects.get().last_used_at == used


def test_a_token_opens_no_project_its_user_is_no_member_of(cast):
    assert ask(f"Bearer {open_token(user=cast.stranger, name='script')}") == 404


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer \xff",
        "Basic YW5uYTp4",
        "Token {token}",
        "{token}",
    ],
)
def test_whatever_is_no_good_token_is_refused(cast, authorization):
    token = open_token(user=cast.anna, name="script")
    assert ask(authorization and authorization.format(token=token)) in (401, 403)


def test_part_of_a_token_or_its_digest_opens_nothing(cast):
    token = open_token(user=cast.anna, name="script")
    for wrong in (token[:-1], token + "x", token.upper(), token_digest(token)):
        assert ask(f"Bearer {wrong}") in (401, 403)


def test_a_revoked_token_opens_nothing(cast):
    kept, revoked = open_token(user=cast.anna, name="a"), open_token(user=cast.anna, name="b")
    row = ApiToken.objects.get(name="b")
    assert revoke_token(user=cast.anna, token_id=row.pk) is True
    assert revoke_token(user=cast.anna, token_id=row.pk) is False
    assert ask(f"Bearer {revoked}") in (401, 403)
    assert ask(f"Bearer {kept}") == 200


def test_nobody_revokes_somebody_elses_token(cast):
    token = open_token(user=cast.anna, name="script")
    row = ApiToken.objects.get()
    assert revoke_token(user=cast.ben, token_id=row.pk) is False
    client = Client()
    client.force_login(cast.ben)
    assert client.post(f"/account/tokens/{row.pk}/revoke/").status_code == 404
    assert client.post("/account/tokens/999999/revoke/").status_code == 404
    assert ask(f"Bearer {token}") == 200


def test_the_token_of_an_account_that_was_switched_off_opens_nothing(cast):
    token = open_token(user=cast.anna, name="script")
    User.objects.filter(pk=cast.anna.pk).update(is_active=False)
    assert ask(f"Bearer {token}") in (401, 403)


def test_a_session_cookie_works_and_ends_with_signing_out(cast):
    client = Client()
    client.force_login(cast.anna)
    assert client.get(PROGRESS).status_code == 200
    client.post("/sign-out/")
    assert client.get(PROGRESS).status_code in (401, 403)


def test_an_account_of_a_person_never_becomes_a_simulated_one(cast):
    with pytest.raises(Refused, match="belongs to a person"):
        open_simulated_user(username="anna", password="new")
    cast.anna.refresh_from_db()
    assert not cast.anna.is_simulated
    assert not cast.anna.check_password("new")


def test_a_simulated_account_is_marked_and_taken_up_again_with_a_new_password(db):
    first = open_simulated_user(username="rehearsal-1", password="one")
    again = open_simulated_user(username="rehearsal-1", password="two")
    assert first == again
    assert again.is_simulated
    assert (again.check_password("one"), again.check_password("two")) == (False, True)
