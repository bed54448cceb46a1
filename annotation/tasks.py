"""Celery's doorbells for annotation."""

from celery import shared_task

from annotation.services import claims


@shared_task
def expire_leases() -> None:
    claims.expire_leases()
