"""Celery: doorbells only. The database row is the truth; a message carries an id and is acknowledged early."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rankloop.settings")

app = Celery("rankloop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
