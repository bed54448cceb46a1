"""The append-only audit log. A database trigger refuses to change or delete a row."""

from django.conf import settings
from django.db import models


class AuditEvent(models.Model):
    """Who did what to which object, and when. `project` and `subject` are plain values: the log outlives rows."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="audit_events"
    )
    action = models.CharField(max_length=60)
    project = models.CharField(max_length=60, blank=True, db_index=True)
    subject = models.CharField(max_length=120, blank=True)
    details = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"
