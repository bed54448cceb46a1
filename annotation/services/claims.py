"""Claiming a comparison by lease, and giving it back.

Slots are rows, and a claim locks one with `FOR UPDATE SKIP LOCKED`: counting leases in a WHERE clause over-assigns
under load. Slots are claimed in the order of their `position`, which serves every comparison once before any twice;
the search goes on from the annotator's own last position, so that a long day does not scan what it has seen.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from annotation.models import Assignment, Project, Round, Slot
from rankloop.accounts.models import User
from rankloop.errors import Conflict, Refused

# A person works on one comparison while the next is fetched ahead.
MOST_LEASES = 2
MOST_DRAFT_CHARACTERS = 20_000

# One statement: lock a free slot, write the assignment, point the slot at it. An expired assignment of the same
# annotator is taken up again; any other one of theirs keeps the comparison away from them.
_CLAIM = """
WITH free AS (
    SELECT slot.id, slot.comparison_id, slot.position
    FROM annotation_slot slot
    WHERE slot.round_id = %(round)s AND slot.state = 'open' AND slot.position > %(after)s
      AND (slot.reserved_for_id IS NULL OR slot.reserved_for_id = %(annotator)s)
      AND NOT EXISTS (
          SELECT FROM annotation_assignment mine
          WHERE mine.comparison_id = slot.comparison_id AND mine.annotator_id = %(annotator)s
            AND mine.state <> 'expired')
    ORDER BY slot.position
    LIMIT 1
    FOR UPDATE OF slot SKIP LOCKED
), opened AS (
    INSERT INTO annotation_assignment
        (id, comparison_id, annotator_id, state, lease_until, claimed_at, position, shown_order, reason)
    SELECT gen_random_uuid(), free.comparison_id, %(annotator)s, 'open',
           now() + make_interval(mins => %(minutes)s), now(), free.position,
           (SELECT coalesce(array_agg(entry.completion_id ORDER BY random()), '{}')
            FROM annotation_comparisoncompletion entry WHERE entry.comparison_id = free.comparison_id),
           ''
    FROM free
    ON CONFLICT (comparison_id, annotator_id) DO UPDATE
        SET state = 'open', lease_until = excluded.lease_until, position = excluded.position
        WHERE annotation_assignment.state = 'expired'
    RETURNING id
)
UPDATE annotation_slot slot SET state = 'held', assignment_id = opened.id
FROM free, opened WHERE slot.id = free.id
RETURNING opened.id
"""

# One statement, so that an expiry and a late submit can't both have the slot.
_EXPIRE = """
WITH gone AS (
    UPDATE annotation_assignment SET state = 'expired'
    WHERE id IN (
        SELECT assignment.id FROM annotation_assignment assignment
        JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
        JOIN annotation_round round ON round.id = comparison.round_id
        WHERE assignment.state = 'open' AND assignment.lease_until < now()
          AND (%(project)s::bigint IS NULL OR round.project_id = %(project)s)
        FOR UPDATE OF assignment SKIP LOCKED)
    RETURNING id
)
UPDATE annotation_slot SET state = 'open', assignment_id = NULL
FROM gone WHERE annotation_slot.assignment_id = gone.id AND annotation_slot.state = 'held'
"""


def claim_comparison(
    *, project: Project, annotator: User, holding: uuid.UUID | None = None, prefetch: bool = False
) -> Assignment | None:
    """My open lease (with its time renewed), else a newly leased comparison, else None when nothing is left for me.

    With `prefetch` the assignment in `holding` is passed over, and a second comparison is leased beside it; nobody
    holds more than two. Raises Refused while the project is paused.
    """
    if project.is_paused:
        raise Refused("This project is paused. Your work is kept; come back when it goes on.")
    with transaction.atomic():
        # Two tabs of one person claim one after the other: without it each could open leases the other can't see.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(1, %s)", [annotator.pk])
        mine = list(
            Assignment.objects.filter(
                annotator=annotator,
                state=Assignment.State.OPEN,
                comparison__round__project=project,
                comparison__round__status=Round.Status.RANKING,
            ).order_by("claimed_at")[:MOST_LEASES]
        )
        for assignment in mine:
            if not (prefetch and assignment.pk == holding):
                renew_lease(project=project, assignment=assignment)
                return assignment
        if len(mine) >= MOST_LEASES:
            return None
        return _claim_free(project, annotator)


def _claim_free(project: Project, annotator: User) -> Assignment | None:
    audience = Round.Audience.REHEARSAL if annotator.is_simulated else Round.Audience.PEOPLE
    rounds = project.rounds.filter(status=Round.Status.RANKING, audience=audience).order_by(
        "-priority", "number"
    )
    round_ids = list(rounds.values_list("pk", flat=True))
    for round_id in round_ids:
        last = (
            Assignment.objects.filter(annotator=annotator, comparison__round_id=round_id)
            .order_by("-claimed_at")
            .values_list("position", flat=True)
            .first()
        )
        found = _claim_in(project, annotator, round_id, after=last or 0)
        # Behind the last position lies what others skipped or let expire.
        if found is None and last:
            found = _claim_in(project, annotator, round_id, after=0)
        if found is not None:
            return found
    # SKIP LOCKED can come back empty while others hold rows, and leases may have run out unswept: once more.
    if round_ids:
        expire_leases(project=project)
    for round_id in round_ids:
        found = _claim_in(project, annotator, round_id, after=0)
        if found is not None:
            return found
    return None


def _claim_in(project: Project, annotator: User, round_id: int, *, after: int) -> Assignment | None:
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM,
            {"round": round_id, "annotator": annotator.pk, "minutes": project.lease_minutes, "after": after},
        )
        row = cursor.fetchone()
    return None if row is None else Assignment.objects.get(pk=row[0])


def expire_leases(*, project: Project | None = None) -> int:
    """Give the slots of leases that have run out to others; returns how many. Safe to run at any time, twice too."""
    with connection.cursor() as cursor:
        cursor.execute(_EXPIRE, {"project": project.pk if project else None})
        return cursor.rowcount


def renew_lease(*, project: Project, assignment: Assignment) -> datetime:
    """Put the end of the lease `project.lease_minutes` from now. Raises Conflict when it is no longer open."""
    until = timezone.now() + timedelta(minutes=project.lease_minutes)
    open_ = Assignment.objects.filter(pk=assignment.pk, state=Assignment.State.OPEN)
    if open_.update(lease_until=until) != 1:
        raise Conflict(
            "This comparison is no longer reserved for you. You can still send your ranking: it counts if nobody "
            "has taken the place, and is kept in any case."
        )
    assignment.lease_until = until
    return until


@transaction.atomic
def skip_comparison(*, assignment: Assignment, reason: str) -> None:
    """Give the slot to others and never offer this comparison to this annotator again. Repeatable.

    Raises Conflict when it has been judged already.
    """
    locked = Assignment.objects.select_for_update().get(pk=assignment.pk)
    if locked.state == Assignment.State.SUBMITTED:
        raise Conflict("You have judged this comparison already; there is nothing to skip.")
    locked.state, locked.reason = Assignment.State.SKIPPED, reason
    locked.save(update_fields=["state", "reason"])
    _reopen_slot(locked)


@transaction.atomic
def release_comparison(*, assignment: Assignment) -> None:
    """Give back a lease that was not used, a prefetched one say. It may be offered again. Repeatable."""
    locked = Assignment.objects.select_for_update().get(pk=assignment.pk)
    if locked.state == Assignment.State.OPEN:
        locked.state = Assignment.State.EXPIRED
        # The search starts behind this one again, so that it is not passed over.
        locked.position -= 1
        locked.save(update_fields=["state", "position"])
        _reopen_slot(locked)


def _reopen_slot(assignment: Assignment) -> None:
    Slot.objects.filter(assignment=assignment, state=Slot.State.HELD).update(
        state=Slot.State.OPEN, assignment=None
    )


def save_draft(*, assignment: Assignment, draft: Mapping[str, Any]) -> None:
    """Keep what the annotator has done so far. Raises Refused when it is too large, Conflict when already judged."""
    if len(str(draft)) > MOST_DRAFT_CHARACTERS:
        raise Refused(f"The draft is longer than {MOST_DRAFT_CHARACTERS} characters. Shorten the comments.")
    kept = Assignment.objects.filter(pk=assignment.pk).exclude(state=Assignment.State.SUBMITTED)
    if kept.update(draft=draft) != 1:
        raise Conflict("You have judged this comparison already; the draft is not needed any more.")
