"""Holding long work by a lease: claim, renew, end, and give lost work back.

Every write names the attempt, which grows with each claim. A worker that was thought dead and wakes up writes nothing.
"""

from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, F, Model, Value, When
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
    """Lock the row until the transaction ends, so that what is written in it is this attempt's. Raises LeaseLost.

    A worker that is stopped in the midst of the transaction would keep the row from everybody: after the time of a
    lease the database ends such a transaction, and nothing of it was written.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
            [str(int(settings.WORK_LEASE_SECONDS * 1000))],
        )
    held = type(work).objects.filter(pk=work.pk, attempt=work.attempt, status__in=HELD)
    if held.select_for_update().first() is None:
        raise LeaseLost(f"attempt {work.attempt} of {work} is over")


def renew_work(work: Work) -> bool:
    """Renew the lease; true when a person has asked to cancel. Raises LeaseLost."""
    write_held(work, lease_until=_lease_end())
    return type(work).objects.filter(pk=work.pk, status=WorkStatus.CANCELLING).exists()


def grant_attempts(work: Work) -> None:
    """As many further attempts as at first, for work that got further than the attempts before. Raises LeaseLost."""
    work.attempt_limit = max(work.attempt_limit, work.attempt + settings.MAX_ATTEMPTS)
    write_held(work, attempt_limit=work.attempt_limit)


def end_work(work: Work, status: str, **values: Any) -> None:
    """End an attempt this worker holds. Raises LeaseLost."""
    write_held(work, status=status, lease_until=None, ended_at=timezone.now(), **values)


def give_back(work: Work, **values: Any) -> None:
    """Queue what this worker holds for another attempt; what a person has asked to cancel is cancelled instead.

    Raises LeaseLost.
    """
    cancelled = When(status=WorkStatus.CANCELLING, then=Value(WorkStatus.CANCELLED))
    write_held(
        work,
        status=Case(cancelled, default=Value(WorkStatus.QUEUED)),
        ended_at=Case(When(status=WorkStatus.CANCELLING, then=timezone.now()), default=None),
        lease_until=None,
        **values,
    )


def request_cancel(work: Work) -> None:
    """Cancel what waits at once; ask the worker of running work to save and stop. Over is over: then nothing.

    One statement, so that work which is claimed or given back meanwhile is cancelled all the same.
    """
    waiting = [WorkStatus.DRAFT, WorkStatus.QUEUED]
    type(work).objects.filter(pk=work.pk, status__in=[*waiting, WorkStatus.RUNNING]).update(
        status=Case(
            When(status__in=waiting, then=Value(WorkStatus.CANCELLED)), default=Value(WorkStatus.CANCELLING)
        ),
        ended_at=Case(When(status__in=waiting, then=timezone.now()), default=F("ended_at")),
    )


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


@transaction.atomic
def return_lost(kind: type[Model]) -> int:
    """Queue what dead workers held; what has used up its attempts fails and says so. Returns how many were lost.

    A row that somebody is writing to is left for the next sweep: a worker stopped in a transaction holds up no other.
    """
    now = timezone.now()
    expired = kind.objects.select_for_update(skip_locked=True).filter(lease_until__lt=now, status__in=HELD)
    lost = kind.objects.filter(pk__in=list(expired.values_list("pk", flat=True)))
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


def to_claim(kind: type[W], workers: int) -> list[W]:
    """The rows to claim next, one for each of so many workers that has nothing to do.

    Their doorbells may have been lost and are rung again. The higher priority first, then the older one. Drafts wait
    for no worker.
    """
    idle = workers - kind.objects.filter(status__in=HELD).count()
    queued = kind.objects.filter(status=WorkStatus.QUEUED).order_by(*kind.claimed_in_order_of)
    return list(queued[: max(0, idle)])
