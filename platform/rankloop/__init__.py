"""Rankloop's Django project: settings, accounts, audit log, templates and static files."""

from rankloop.celery import app as celery_app

__all__ = ["celery_app"]
