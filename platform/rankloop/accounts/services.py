"""Writing accounts: people, simulated annotators and API tokens."""

import hashlib
import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone

from rankloop.accounts.models import ApiToken, User
from rankloop.audit.services import record
from rankloop.errors import Refused


@transaction.atomic
def open_account(*, username: str, password: str) -> User:
    """A person's new account. Raises Refused when the name is taken; `NewAccountForm` checks name and password."""
    try:
        with transaction.atomic():
            user = User.objects.create_user(username, password=password)
    except IntegrityError:
        raise Refused(f"The username {username!r} is taken. Choose another.") from None
    record("account opened", actor=user, subject=username)
    return user


@transaction.atomic
def open_simulated_user(*, username: str, password: str) -> User:
    """The simulated annotator of that name with this password, made when missing.

    Raises Refused when the name belongs to a person: a person's account never turns into a simulated one.
    """
    user, _ = User.objects.get_or_create(username=username, defaults={"is_simulated": True})
    if not user.is_simulated:
        raise Refused(f"The account {username!r} belongs to a person. Choose another name for the rehearsal.")
    user.set_password(password)
    user.save(update_fields=["password"])
    return user


def token_digest(token: str) -> str:
    """SHA-256 (hex) under which a token is kept. Tokens carry 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def open_token(*, user: User, name: str) -> str:
    """Make an API token and return it. It can't be shown again."""
    token = f"rl_{secrets.token_urlsafe(32)}"
    ApiToken.objects.create(user=user, name=name, digest=token_digest(token))
    return token


def revoke_token(*, user: User, token_id: int) -> bool:
    """Revoke one of the user's own tokens; false when there is none to revoke."""
    mine = ApiToken.objects.filter(pk=token_id, user=user, revoked_at__isnull=True)
    return mine.update(revoked_at=timezone.now()) == 1
