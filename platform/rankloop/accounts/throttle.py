"""Slowing down the guessing of passwords. Failures are rows of the audit log, so every process counts the same."""

from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from rankloop.audit.models import AuditEvent
from rankloop.audit.services import record

ACTION = "sign-in failed"
MOST_FAILURES = 10
WINDOW = timedelta(minutes=15)


def client_address(request: HttpRequest) -> str:
    """Where the request comes from. Behind our own proxy that is what the proxy has added last, never more."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if settings.SECURE_PROXY_SSL_HEADER and forwarded:
        return forwarded.rsplit(",", 1)[-1].strip()
    return request.META.get("REMOTE_ADDR", "")


def _subject(username: str, address: str) -> str:
    # A digest: people type passwords into the wrong field, and the log can't be edited.
    return salted_hmac(ACTION, f"{username.strip().lower()}\n{address}", algorithm="sha256").hexdigest()[:40]


def note_failure(*, username: str, address: str) -> None:
    """Keep one failed sign-in."""
    record(ACTION, actor=None, subject=_subject(username, address), address=address)


def is_throttled(*, username: str, address: str) -> bool:
    """Whether this username has failed too often from this address within the window."""
    recent = AuditEvent.objects.filter(
        at__gte=timezone.now() - WINDOW, action=ACTION, subject=_subject(username, address)
    )
    return recent.count() >= MOST_FAILURES
