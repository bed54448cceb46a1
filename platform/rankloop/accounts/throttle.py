"""Slowing down guesses at passwords, invitations and usernames.

Failures are rows of the audit log, so every process counts the same.
"""

from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from rankloop.audit.models import AuditEvent
from rankloop.audit.services import record

SIGN_IN = "sign-in failed"
MOST_FAILURES = 10
WINDOW = timedelta(minutes=15)


def client_address(request: HttpRequest) -> str:
    """Where the request comes from. Behind our own proxy that is what the proxy has added last, never more."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if settings.SECURE_PROXY_SSL_HEADER and forwarded:
        return forwarded.rsplit(",", 1)[-1].strip()
    return request.META.get("REMOTE_ADDR", "")


def _subject(action: str, username: str, address: str) -> str:
    # A digest: people type passwords into the wrong field, and the log can't be edited.
    return salted_hmac(action, f"{username.strip().lower()}\n{address}", algorithm="sha256").hexdigest()[:40]


def note_failure(*, username: str, address: str, action: str = SIGN_IN) -> None:
    """Keep one failed attempt."""
    record(action, actor=None, subject=_subject(action, username, address), address=address)


def is_throttled(*, username: str, address: str, action: str = SIGN_IN) -> bool:
    """Whether this username has failed too often from this address within the window; empty: the address alone."""
    recent = AuditEvent.objects.filter(
        at__gte=timezone.now() - WINDOW, action=action, subject=_subject(action, username, address)
    )
    return recent.count() >= MOST_FAILURES
