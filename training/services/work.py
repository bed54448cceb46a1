"""Holding long work by a lease: claim, renew, end, and give lost work back.

Every write names the attempt, which grows with each claim. A worker that was thought dead and wakes up writes nothing.
"""

from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db.models import F, Model
from django.utils import timezone

from training.models import WorkStatus
from training.models.work import Work

W = TypeVar("W", bound=Work)
HELD = (WorkStatus.RUNNING, WorkStatus.CANCELLING)


class LeaseLost(Exception):
    """Another attempt has taken over, or the row was ended from outside. Stop, and write nothing more."""


def _lease_end() -> Any:
    return timezone.now() + timedelta(seconds=settings.WORK_LEASE_SECONDS)


def claim_work(kind: type[W], work_id: Any, *, worker: str) -> W | None:
    """Take a queued row for this worker, or None when somebody else has it or it is over."""
    taken = kind.objects.filter(pk=work_id, status=WorkStatus.QUEUED).update(
        status=WorkStatus.RUNNING,
        attempt=F("attempt") + 1,
        worker=worker,
        lease_until=_lease_end(),
        started_at=timezone.now(),
        ended_at=None,
        error="",
        progress={},
    )
    return kind.objects.get(pk=work_id) if taken == 1 else None


def write_held(work: Work, **values: Any) -> None:
    """Update a row this attempt holds. Raises LeaseLost when it no longer does."""
    held = type(work).objects.filter(pk=work.pk, attempt=work.attempt, status__in=HELD)
    if held.update(**values) != 1:
        raise LeaseLost(f"attempt {work.attempt} of {work} is over")


def lock_held(work: Work) -> None:
    """Lock the row until the transaction ends, so that what is written in it is this attempt's. Raises LeaseLost."""
    held = type(work).objects.filter(pk=work.pk, attempt=work.attempt, status__in=HELD)
    if held.select_for_update().first() is None:
        raise LeaseLost(f"attempt {work.attempt} of {work} is over")


def renew_work(work: Work) -> bool:
    """Renew the lease; true when a person has asked to cancel. Raises LeaseLost."""
    write_held(work, lease_until=_lease_end())
    return type(work).objects.filter(pk=work.pk, status=WorkStatus.CANCELLING).exists()


def end_work(work: Work, status: str, **values: Any) -> None:
    """End an attempt this worker holds. Raises LeaseLost."""
    write_held(work, status=status, lease_until=None, ended_at=timezone.now(), **values)


def request_cancel(work: Work) -> None:
    """Cancel a draft or queued work at once; ask the worker of running work to save and stop. Over is over."""
    rows = type(work).objects.filter(pk=work.pk)
    if (
        rows.filter(status__in=[WorkStatus.DRAFT, WorkStatus.QUEUED]).update(
            status=WorkStatus.CANCELLED, ended_at=timezone.now()
        )
        == 0
    ):
        rows.filter(status=WorkStatus.RUNNING).update(status=WorkStatus.CANCELLING)


def requeue(work: Work) -> None:
    """Let failed or cancelled work be claimed again, with as many new attempts as at first; it goes on from its last
    checkpoint."""
    over = type(work).objects.filter(pk=work.pk, status__in=[WorkStatus.FAILED, WorkStatus.CANCELLED])
    over.update(
        status=WorkStatus.QUEUED,
        error="",
        progress={},
        ended_at=None,
        attempt_limit=F("attempt") + settings.MAX_ATTEMPTS,
    )


def return_lost(kind: type[Model]) -> int:
    """Queue what dead workers held; what has used up its attempts fails and says so. Returns how many were lost."""
    lost = kind.objects.filter(lease_until__lt=timezone.now())
    now = timezone.now()
    spent = lost.filter(status=WorkStatus.RUNNING, attempt__gte=F("attempt_limit")).update(
        status=WorkStatus.FAILED,
        lease_until=None,
        ended_at=now,
        error="Its worker died in every attempt. Read the log of the last one, then retry.",
    )
    cancelled = lost.filter(status=WorkStatus.CANCELLING).update(
        status=WorkStatus.CANCELLED, lease_until=None, ended_at=now
    )
    queued = lost.filter(status=WorkStatus.RUNNING).update(status=WorkStatus.QUEUED, lease_until=None)
    return spent + cancelled + queued


def idle_queue(kind: type[W]) -> W | None:
    """The oldest queued row, when nothing of its kind runs: a doorbell may have been lost and is rung again."""
    if kind.objects.filter(status__in=HELD).exists():
        return None
    return kind.objects.filter(status=WorkStatus.QUEUED).order_by("created_at").first()
