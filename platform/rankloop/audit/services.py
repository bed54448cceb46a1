"""Writing the audit log."""

from typing import Any

from rankloop.accounts.models import User
from rankloop.audit.models import AuditEvent


def record(action: str, *, actor: User | None, project: str = "", subject: str = "", **details: Any) -> None:
    """Add one event, in the caller's transaction: it is there exactly when the change is there."""
    AuditEvent.objects.create(actor=actor, action=action, project=project, subject=subject, details=details)
