"""Bearer tokens for the API."""

from datetime import timedelta

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from rankloop.accounts.models import ApiToken, User
from rankloop.accounts.services import token_digest


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer rl_...`, compared by digest."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        row = (
            ApiToken.objects.select_related("user")
            .filter(digest=token_digest(token), revoked_at=None)
            .first()
        )
        if row is None or not row.user.is_active:
            raise AuthenticationFailed(
                "This token is unknown or revoked. Make a new one on your account page."
            )
        now = timezone.now()
        if row.last_used_at is None or now - row.last_used_at > timedelta(minutes=1):
            ApiToken.objects.filter(pk=row.pk).update(last_used_at=now)
        return row.user, row

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
